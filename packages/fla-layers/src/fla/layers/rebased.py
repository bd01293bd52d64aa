"""ReBased (arXiv 2402.10644) as a layer."""

from __future__ import annotations

from typing import Any

import torch

from fla.layers.based import FeatureAttention
from fla.modules import RebasedFeatureMap
from fla.ops.rebased import parallel_rebased


class ReBasedLinearAttention(FeatureAttention):
    r"""Linear attention whose weights are the squares of scores (ReBased, arXiv 2402.10644).

    .. math::
        o_i = \sum_{j \le i} w_{ij} v_j \Big/ \Big(\sum_{j \le i} w_{ij} + eps\Big), \qquad
        w_{ij} = (z(q_i) \cdot z(k_j))^2 / feature\_dim, \qquad z(x) = gamma \odot \mathrm{layer\_norm}(x) + beta

    per head, in linear time, and then the output projection. The state ``(S, z)`` is kept in float32; see
    :func:`fla.ops.rebased.parallel_rebased`.

    Args:
        hidden_size: channels in and out.
        l_max: has no effect: there is no longest sequence.
        feature_dim: channels of queries and keys.
        num_key_value_heads: key and value heads, a divisor of ``num_heads``; as many where it is None.
        num_heads: query heads.
        use_gamma: learn gamma.
        use_beta: learn beta.
        normalize: take the layer norm of queries and keys.
        causal: must be True.
        eps: added to the sum of the weights.
        mode: ``"parallel"``, ``"chunk"`` or ``"fused_chunk"``: names of one form.
        layer_idx: the layer's place in the cache.

    Raises:
        ValueError: an unknown mode, ``causal=False``, or sizes that the heads do not divide.
    """

    def __init__(
        self,
        hidden_size: int,
        l_max: int = 2048,
        feature_dim: int = 16,
        num_key_value_heads: int | None = 16,
        num_heads: int = 16,
        use_gamma: bool | None = True,
        use_beta: bool | None = True,
        normalize: bool | None = True,
        causal: bool = True,
        eps: float = 1e-5,
        mode: str = "parallel",
        layer_idx: int | None = None,
    ) -> None:
        super().__init__(hidden_size, feature_dim, num_key_value_heads, num_heads, causal, mode, layer_idx)
        self.eps = eps
        self.feature_map = RebasedFeatureMap(feature_dim, bool(use_gamma), bool(use_beta), bool(normalize))

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **call: Any) -> Any:
        """Attention by squares."""
        # Under autocast a norm's result is wider than what it takes.
        q, k = (self.feature_map(x, flatten=False).to(v.dtype) for x in (q, k))
        return parallel_rebased(q, k, v, eps=self.eps, output_final_state=True, **call)
