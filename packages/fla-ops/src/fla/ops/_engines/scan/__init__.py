"""An elementwise recurrence.

.. math:: h_t = e^{g_t} h_{t-1} + x_t

The family on it: hgrn.
"""
