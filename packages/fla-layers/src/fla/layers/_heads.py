"""Heads of gated linear attention and its relatives: queries, keys and values, and a gated output."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

from fla.layers._output import GatedOutput
from fla.layers.base import MODES, Call, check_choice, check_divisible
from fla.layers.cache import State
from fla.modules import ACT2FN, ShortConvolution


class GatedHeads(GatedOutput):
    """A mixer whose query heads may share keys and values, with optional convolutions and output gate."""

    def add_heads(
        self,
        mode: str,
        expand_k: float,
        expand_v: float,
        num_heads: int,
        num_kv_heads: int | None,
        feature_map: str | None,
        use_short_conv: bool,
        conv_size: int,
        conv_bias: bool,
        modes: Collection[str] = MODES,
    ) -> None:
        """Make the projections of queries, keys and values and their convolutions; for ``__init__``.

        Args:
            mode: one of ``modes``.
            expand_k: key channels of all heads over ``hidden_size``.
            expand_v: value channels of all heads over ``hidden_size``.
            num_heads: query heads.
            num_kv_heads: key and value heads, a divisor of ``num_heads``; as many unless given.
            feature_map: activation of queries and keys by its name in ``fla.modules.ACT2FN``; none unless given.
            use_short_conv: a short causal convolution and SiLU on queries, keys and values.
            conv_size: its width.
            conv_bias: whether it has a bias.
            modes: the names that ``mode`` may have.

        Raises:
            ValueError: an unknown mode or activation, or sizes that the heads do not divide.
        """
        check_choice("mode", mode, modes)
        if feature_map is not None:
            check_choice("feature_map", feature_map, ACT2FN)
        num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        check_divisible("num_heads", num_heads, "num_kv_heads", num_kv_heads)
        self.mode = mode
        self.num_heads = num_heads
        self.num_kv_groups = num_heads // num_kv_heads
        self.key_dim, self.value_dim = int(self.hidden_size * expand_k), int(self.hidden_size * expand_v)
        check_divisible("hidden_size * expand_k", self.key_dim, "num_heads", num_heads)
        check_divisible("hidden_size * expand_v", self.value_dim, "num_heads", num_heads)
        self.head_k_dim, self.head_v_dim = self.key_dim // num_heads, self.value_dim // num_heads
        self.kv_key_dim, kv_value_dim = num_kv_heads * self.head_k_dim, num_kv_heads * self.head_v_dim
        self.feature_map = feature_map
        self.use_short_conv = use_short_conv

        self.q_proj = nn.Linear(self.hidden_size, self.key_dim, bias=False)
        self.k_proj = nn.Linear(self.hidden_size, self.kv_key_dim, bias=False)
        self.v_proj = nn.Linear(self.hidden_size, kv_value_dim, bias=False)
        if use_short_conv:
            self.q_conv1d = ShortConvolution(self.key_dim, conv_size, bias=conv_bias, activation="silu")
            self.k_conv1d = ShortConvolution(self.kv_key_dim, conv_size, bias=conv_bias, activation="silu")
            self.v_conv1d = ShortConvolution(kv_value_dim, conv_size, bias=conv_bias, activation="silu")

    def add_output(
        self, use_output_gate: bool, gate_fn: str, fuse_norm: bool, elementwise_affine: bool | None, eps: float
    ) -> None:
        """Make the norm, the gate and the output projection; for ``__init__``. See :meth:`add_output_norm`."""
        if use_output_gate:
            self.g_proj = nn.Linear(self.hidden_size, self.value_dim, bias=False)
        self.o_proj = nn.Linear(self.value_dim, self.hidden_size, bias=False)
        self.add_output_norm(self.head_v_dim, use_output_gate, gate_fn, fuse_norm, elementwise_affine, eps)

    def heads(self, x: torch.Tensor, call: Call) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, State | None]:
        """Queries ``[B, T, num_heads, K]``, keys and values ``[B, T, num_kv_heads, K or V]``, and the ``conv_state``.

        Heads are counted from the channels: under tensor parallelism a rank holds a part of them.
        """
        convolutions = (self.q_conv1d, self.k_conv1d, self.v_conv1d) if self.use_short_conv else ()
        (q, k, v), conv_state = call.convolve(convolutions, (self.q_proj(x), self.k_proj(x), self.v_proj(x)))
        if self.feature_map is not None:
            q, k = ACT2FN[self.feature_map](q), ACT2FN[self.feature_map](k)
        q, k = (y.unflatten(-1, (-1, self.head_k_dim)) for y in (q, k))
        return q, k, v.unflatten(-1, (-1, self.head_v_dim)), conv_state

    def output(self, o: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Normalise the heads o ``[B, T, H, V]``, gate them by x and project them to ``[B, T, D]``."""
        gate = self.g_proj(x) if self.use_output_gate else None
        return self.o_proj(self.norm_and_gate(o, gate))  # type: ignore[no-any-return]
