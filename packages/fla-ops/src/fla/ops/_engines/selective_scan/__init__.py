r"""An elementwise recurrence with N states a channel, read and written by inputs.

.. math:: h_t = e^{\delta_t A} h_{t-1} + \delta_t u_t B_t, \qquad y_t = h_t \cdot C_t

The family on it: mamba.
"""
