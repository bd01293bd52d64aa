r"""Each write corrects the value that its key holds; no decay, one per step, or one per channel.

.. math:: S_t = D_t S_{t-1} + \beta_t k_t (v_t - k_t^\top D_t S_{t-1})^\top, \qquad o_t = scale \cdot S_t^\top q_t

Families on it: delta_rule, gated_delta_rule, gated_delta_product, kda, comba.
"""
