"""Linear attention (arXiv 2006.16236) as a layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from fla.layers._heads import GatedHeads
from fla.layers.base import Call, check_choice, repeat_heads
from fla.modules import (
    DPFPFeatureMap,
    ELUFeatureMap,
    HadamardFeatureMap,
    HedgehogFeatureMap,
    ReLUFeatureMap,
    RMSNorm,
    T2RFeatureMap,
)
from fla.ops.linear_attn import chunk_linear_attn, fused_recurrent_linear_attn

#: Name -> the feature map of heads with so many channels.
FEATURE_MAPS: dict[str, Callable[[int], nn.Module]] = {
    "dpfp": DPFPFeatureMap,
    # The map of flash-linear-attention before 0.6.0, for models that were trained with it.
    "dpfp_signed": lambda head_dim: DPFPFeatureMap(head_dim, signed=True),
    "elementwise_product": HadamardFeatureMap,
    "elu": lambda head_dim: ELUFeatureMap(),
    "hedgehog": HedgehogFeatureMap,
    "identity": lambda head_dim: nn.Identity(),
    "relu": lambda head_dim: ReLUFeatureMap(),
    "t2r": T2RFeatureMap,
}
OUTPUT_NORMS = ("rmsnorm", "identity")


class LinearAttention(GatedHeads):
    r"""Linear attention (arXiv 2006.16236) over learned or fixed features.

    .. math::
        S_t = S_{t-1} + \phi(k_t) v_t^\top, \qquad z_t = z_{t-1} + \phi(k_t), \qquad
        o_t = \frac{S_t^\top \phi(q_t)}{z_t^\top \phi(q_t)} \text{ or } S_t^\top \phi(q_t) / \sqrt{F}

    per head with F features; then RMS norm per head and the output projection. The state is kept in float32: S
    ``[N, num_heads, F, V]``, or ``(S, z)`` with z ``[N, 1, num_heads, F]``.

    Args:
        mode: ``"chunk"`` or ``"fused_recurrent"``; ``"fused_chunk"`` is another name of the first. Short calls
            outside training take the recurrent form in any mode.
        hidden_size: channels in and out.
        expand_k: key channels of all heads over ``hidden_size``.
        expand_v: value channels of all heads over ``hidden_size``.
        num_heads: query heads.
        num_kv_heads: key and value heads, a divisor of ``num_heads``; as many unless given.
        feature_map: one of ``FEATURE_MAPS``; see ``fla.modules.feature_map``.
        tie_feature_map_qk: one feature map for queries and keys.
        output_norm: ``"rmsnorm"`` per head, or ``"identity"`` for none.
        norm_q: divide the features of each query by their sum.
        norm_k: divide the features of each key by their sum.
        do_feature_map_norm: divide by the sum of the weights. They should not be negative.
        elementwise_affine: learn a weight for the norm of the output.
        norm_eps: added to its mean square.
        layer_idx: the layer's place in the cache.

    Raises:
        ValueError: an unknown mode, feature map or norm, or sizes that the heads do not divide.
    """

    def __init__(
        self,
        mode: str = "chunk",
        hidden_size: int = 1024,
        expand_k: float = 1.0,
        expand_v: float = 1.0,
        num_heads: int = 8,
        num_kv_heads: int | None = None,
        feature_map: str = "elementwise_product",
        tie_feature_map_qk: bool = False,
        output_norm: str = "rmsnorm",
        norm_q: bool = False,
        norm_k: bool = False,
        do_feature_map_norm: bool = False,
        elementwise_affine: bool | None = True,
        norm_eps: float = 1e-5,
        layer_idx: int | None = None,
    ) -> None:
        super().__init__(hidden_size, layer_idx)
        check_choice("feature_map", feature_map, FEATURE_MAPS)
        check_choice("output_norm", output_norm, OUTPUT_NORMS)
        self.add_heads(mode, expand_k, expand_v, num_heads, num_kv_heads, None, False, 0, False)
        self.tie_feature_map_qk = tie_feature_map_qk
        self.norm_q, self.norm_k = norm_q, norm_k
        self.do_feature_map_norm = do_feature_map_norm
        self.feature_map_q = FEATURE_MAPS[feature_map](self.head_k_dim)
        if tie_feature_map_qk:
            self.register_load_state_dict_pre_hook(_drop_second_name)  # type: ignore[no-untyped-call]
        else:
            self.feature_map_k = FEATURE_MAPS[feature_map](self.head_k_dim)
        if output_norm == "rmsnorm":
            self.norm: nn.Module = RMSNorm(self.head_v_dim, elementwise_affine=bool(elementwise_affine), eps=norm_eps)
        else:
            self.norm = nn.Identity()
        self.o_proj = nn.Linear(self.value_dim, hidden_size, bias=False)

    def mix(self, x: torch.Tensor, call: Call, **shared: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """Features of queries and keys, the recurrence, and the normalised output."""
        q, k, v, _ = self.heads(x, call)
        q = self.feature_map_q(q)
        k = (self.feature_map_q if self.tie_feature_map_qk else self.feature_map_k)(k)
        # Under autocast some feature maps are wider than what they take.
        q, k = q.to(v.dtype), k.to(v.dtype)
        q, k = _norm_sum(q) if self.norm_q else q, _norm_sum(k) if self.norm_k else k
        o, state = (fused_recurrent_linear_attn if self.is_recurrent(call) else chunk_linear_attn)(
            q,
            repeat_heads(k, self.num_kv_groups),
            repeat_heads(v, self.num_kv_groups),
            initial_state=call.read("recurrent_state"),
            output_final_state=call.writes,
            normalize=self.do_feature_map_norm,
            cu_seqlens=call.cu_seqlens,
        )
        call.write(recurrent_state=state)
        return (self.o_proj(self.norm(o).flatten(-2)),)


def _norm_sum(features: torch.Tensor) -> torch.Tensor:
    # The two parts of the gradient cancel, so neither is rounded to half precision.
    wide = features.to(torch.promote_types(features.dtype, torch.float32))
    return (wide / (wide.sum(-1, keepdim=True) + 1e-4)).to(features.dtype)


def _drop_second_name(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Drop the second name of a feature map that was stored under both."""
    for key in [key for key in state_dict if key.startswith(f"{prefix}feature_map_k.")]:
        del state_dict[key]
