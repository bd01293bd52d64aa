r"""A decay per channel of the keys, or of the values.

.. math:: S_t = \mathrm{diag}(e^{g_t}) S_{t-1} + k_t v_t^\top, \qquad o_t = scale \cdot S_t^\top q_t

With a bonus u a step reads :math:`S_{t-1} + \mathrm{diag}(u) k_t v_t^\top`. Families on it: gla, rwkv6, gsa, abc.
"""
