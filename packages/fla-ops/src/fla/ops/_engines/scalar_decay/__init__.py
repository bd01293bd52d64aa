r"""A decay per head and step, per head, or none.

.. math:: S_t = e^{g_t} S_{t-1} + w_t k_t v_t^\top, \qquad o_t = scale \cdot S_t^\top q_t + skip \cdot v_t

Families on it: simple_gla, retention, lightning_attn, linear_attn, rebased, and ssd with weights and skips.
"""
