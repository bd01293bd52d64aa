r"""A transition of diagonal and low rank.

.. math:: S_t = \mathrm{diag}(e^{g_t}) S_{t-1} + b_t (a_t^\top S_{t-1}) + k_t v_t^\top,
    \qquad o_t = scale \cdot S_t^\top q_t

Families on it: generalized_delta_rule, rwkv7.
"""
