"""Based (arXiv 2402.18668) as a layer, and what ReBased shares with it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fla.layers.base import Call, Mixer, check_choice, check_divisible, repeat_heads
from fla.ops.based import parallel_based

MODES = ("parallel", "chunk", "fused_chunk")


class FeatureAttention(Mixer):
    """Linear attention over the features of few channels: projections and state of Based and ReBased.

    A subclass implements :meth:`attend`.
    """

    def __init__(
        self,
        hidden_size: int,
        feature_dim: int,
        num_key_value_heads: int | None,
        num_heads: int,
        causal: bool,
        mode: str,
        layer_idx: int | None,
    ) -> None:
        super().__init__(hidden_size, layer_idx)
        check_choice("mode", mode, MODES)
        if not causal:
            raise ValueError("causal: expected True, because a state knows the steps before only; got False")
        num_key_value_heads = num_heads if num_key_value_heads is None else num_key_value_heads
        check_divisible("hidden_size", hidden_size, "num_heads", num_heads)
        check_divisible("num_heads", num_heads, "num_key_value_heads", num_key_value_heads)
        self.mode = mode
        self.feature_dim = feature_dim
        self.num_heads = num_heads
        self.num_key_value_heads = num_key_value_heads
        self.num_kv_groups = num_heads // num_key_value_heads
        self.head_dim = hidden_size // num_heads
        self.q_proj = nn.Linear(hidden_size, num_heads * feature_dim, bias=False)
        self.k_proj = nn.Linear(hidden_size, num_key_value_heads * feature_dim, bias=False)
        self.v_proj = nn.Linear(hidden_size, num_key_value_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(hidden_size, hidden_size, bias=False)

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **call: Any) -> Any:
        """Outputs ``[B, T, H, V]`` and the final state; ``call`` holds the initial one and ``cu_seqlens``."""
        raise NotImplementedError

    def mix(self, x: torch.Tensor, call: Call, **shared: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """Queries, keys and values of x, attention, and the output projection."""
        q, k = (project(x).unflatten(-1, (-1, self.feature_dim)) for project in (self.q_proj, self.k_proj))
        v = self.v_proj(x).unflatten(-1, (-1, self.head_dim))
        k, v = repeat_heads(k, self.num_kv_groups), repeat_heads(v, self.num_kv_groups)
        o, state = self.attend(q, k, v, initial_state=call.read("recurrent_state"), cu_seqlens=call.cu_seqlens)
        call.write(recurrent_state=state)
        return (self.o_proj(o.flatten(-2)),)


class BasedLinearAttention(FeatureAttention):
    r"""Linear attention by the second-order expansion of the exponential (Based, arXiv 2402.18668).

    .. math::
        o_i = \sum_{j \le i} w_{ij} v_j \Big/ \sum_{j \le i} w_{ij}, \qquad w_{ij} = 1 + s_{ij} + s_{ij}^2 / 2, \qquad
        s_{ij} = q_i \cdot k_j / \sqrt{feature\_dim}

    per head, in linear time, and then the output projection. The state ``(S, z)`` is kept in float32; see
    :func:`fla.ops.based.parallel_based`.

    Args:
        hidden_size: channels in and out.
        feature_dim: channels of queries and keys.
        num_key_value_heads: key and value heads, a divisor of ``num_heads``; as many where it is None.
        num_heads: query heads.
        feature_name: must be ``"taylor_exp"``.
        eps: has no effect, because no weight is below one half.
        causal: must be True.
        mode: ``"parallel"``, ``"chunk"`` or ``"fused_chunk"``: names of one form.
        layer_idx: the layer's place in the cache.

    Raises:
        ValueError: an unknown mode or feature map, ``causal=False``, or sizes that the heads do not divide.
    """

    def __init__(
        self,
        hidden_size: int,
        feature_dim: int = 16,
        num_key_value_heads: int | None = 12,
        num_heads: int = 12,
        feature_name: str = "taylor_exp",
        eps: float = 1e-12,
        causal: bool = True,
        mode: str = "parallel",
        layer_idx: int | None = None,
    ) -> None:
        check_choice("feature_name", feature_name, ("taylor_exp",))
        super().__init__(hidden_size, feature_dim, num_key_value_heads, num_heads, causal, mode, layer_idx)

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **call: Any) -> Any:
        """Attention by the expanded exponential."""
        return parallel_based(q, k, v, output_final_state=True, **call)
