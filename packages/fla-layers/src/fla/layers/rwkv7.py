"""RWKV-7 (arXiv 2503.14456) as layers: time mixing, and the channel mixing that goes with it."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import nn

from fla.layers._rwkv import height_of, hidden_channels, ramp
from fla.layers.base import MODES, Call, Mixer, check_choice, check_divisible
from fla.layers.rwkv6 import LoRA
from fla.modules import ACT2FN, GroupNorm
from fla.modules._initial import set_initial_values
from fla.modules.l2norm import l2norm
from fla.modules.token_shift import token_shift
from fla.ops.rwkv7 import chunk_rwkv7, fused_k_rwkv7, fused_mul_recurrent_rwkv7, gate_output_correction

#: Parts that are mixed of a token and the one before it, and how steeply the share of the latter falls over channels.
PARTS = {"r": 0.2, "w": 0.9, "k": 0.7, "v": 0.7, "a": 0.9, "g": 0.2}
#: Lower bound of the log decay: a step keeps more than exp(-exp(-0.5)) = 0.545 of each channel.
DECAY = -math.exp(-0.5)


class RWKV7Attention(Mixer):
    r"""The time mixing of RWKV-7 (arXiv 2503.14456).

    .. math::
        S_t = (\mathrm{diag}(e^{w_t}) - (a_t \odot \kappa_t)\, \kappa_t^\top)\, S_{t-1} + k_t v_t^\top, \qquad
        o_t = S_t^\top r_t

    per head; r, w, k, v, a and the output gate are projections of a token mixed with the one before it. Each step
    replaces a share a of what the state holds at the unit vectors :math:`\kappa`. Values are drawn towards those of the
    first layer, which travel with the hidden states as ``v_first``. Then a group norm per head, a bonus for the
    current token, the output gate and the output projection. The state is kept in float32, ``[N, num_heads, K, V]``,
    beside the last token; the decay is computed in float32.

    Called with ``v_first [B, T, value_dim]``, which is None for the first layer, it returns that after the cache.

    Args:
        mode: ``"chunk"`` or ``"fused_recurrent"``; ``"fused_chunk"`` is another name of the first. Short calls
            outside training take the recurrent form in any mode.
        hidden_size: channels in and out, and key channels of all heads.
        head_dim: key channels of a head; from ``num_heads`` where None.
        num_heads: heads; from ``head_dim`` unless given.
        decay_low_rank_dim: rank of the projection to the decay; this and the other ranks follow from
            ``hidden_size`` unless given.
        gate_low_rank_dim: rank of the projection to the output gate.
        a_low_rank_dim: rank of the projection to a.
        v_low_rank_dim: rank of the projection to how far values are drawn; the first layer has none.
        elementwise_affine: learn weight and bias of the norm of the output.
        norm_eps: added to its variance, times ``head_dim``.
        layer_idx: the layer's place in the cache.
        fuse_norm: kept for the sake of existing configs: the norm is fused in any case.
        value_dim: value channels of all heads, ``hidden_size`` unless given; the same in all layers.
        num_hidden_layers: layers of the model; initial values depend on it.

    Raises:
        ValueError: an unknown mode, or sizes that do not fit.
    """

    undecayed: ClassVar[tuple[str, ...]] = (*(f"x_{part}" for part in PARTS), "k_k", "k_a", "r_k")
    takes: ClassVar[tuple[str, ...]] = ("v_first",)
    hands_on: ClassVar[tuple[str, ...]] = ("v_first",)

    def __init__(
        self,
        mode: str = "chunk",
        hidden_size: int = 1024,
        head_dim: int | None = 64,
        num_heads: int | None = None,
        decay_low_rank_dim: int | None = None,
        gate_low_rank_dim: int | None = None,
        a_low_rank_dim: int | None = None,
        v_low_rank_dim: int | None = None,
        elementwise_affine: bool | None = True,
        norm_eps: float = 1e-5,
        layer_idx: int | None = None,
        fuse_norm: bool = False,
        value_dim: int | None = None,
        num_hidden_layers: int | None = None,
    ) -> None:
        super().__init__(hidden_size, layer_idx)
        check_choice("mode", mode, MODES)
        self.mode = mode
        self.num_heads, self.head_dim = _heads(hidden_size, head_dim, num_heads)
        self.key_dim, self.value_dim = hidden_size, hidden_size if value_dim is None else value_dim
        check_divisible("value_dim", self.value_dim, "num_heads", self.num_heads)

        for part in PARTS:
            self.register_parameter(f"x_{part}", nn.Parameter(torch.zeros(1, 1, hidden_size)))
        self.k_k = nn.Parameter(torch.zeros(self.key_dim))
        self.k_a = nn.Parameter(torch.zeros(self.key_dim))
        self.r_k = nn.Parameter(torch.zeros(self.num_heads, self.head_dim))
        self.r_proj = nn.Linear(hidden_size, self.key_dim, bias=False)
        self.k_proj = nn.Linear(hidden_size, self.key_dim, bias=False)
        self.v_proj = nn.Linear(hidden_size, self.value_dim, bias=False)
        self.o_proj = nn.Linear(self.value_dim, hidden_size, bias=False)

        width = self.head_dim / 64
        rank = decay_low_rank_dim or _rank(hidden_size, 2.5 * width)
        self.w_lora = LoRA(hidden_size, self.key_dim, rank, activation="tanh")
        if layer_idx:
            rank = v_low_rank_dim or _rank(hidden_size, 1.7 * width)
            self.v_lora = LoRA(hidden_size, self.value_dim, rank, activation=None)
        rank = a_low_rank_dim or _rank(hidden_size, 2.5 * width)
        self.a_lora = LoRA(hidden_size, self.key_dim, rank, activation=None)
        rank = gate_low_rank_dim or _rank(hidden_size, 5)
        self.g_lora = LoRA(hidden_size, self.value_dim, rank, bias=False, activation="sigmoid")
        self.g_norm = GroupNorm(
            self.num_heads, self.value_dim, bool(elementwise_affine), bias=True, eps=self.head_dim * norm_eps
        )
        set_initial_values(self, num_hidden_layers or 1)

    def mix(self, x: torch.Tensor, call: Call, **shared: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """The mixtures, their projections, the recurrence, and the gated output; then the first layer's values."""
        delta, last = token_shift(x, call.cu_seqlens, call.read("conv_state"), output_cache=True)
        xr, xw, xk, xv, xa, xg = (torch.addcmul(x, delta, self.get_parameter(f"x_{part}")) for part in PARTS)
        r, k, v, g = self.r_proj(xr), self.k_proj(xk), self.v_proj(xv), self.g_lora(xg)
        w = DECAY * torch.sigmoid(self.w_lora(xw).float())
        a = torch.sigmoid(self.a_lora(xa))
        v, v_first = self._drawn(v, xv, shared.get("v_first"), call)
        kk = l2norm((k * self.k_k).unflatten(-1, (self.num_heads, -1))).to(k.dtype)
        k = fused_k_rwkv7(k, a, self.k_a)
        r, w, k, v, a = (y.unflatten(-1, (self.num_heads, -1)) for y in (r, w, k, v, a))
        state = call.read("recurrent_state")
        if self.is_recurrent(call):
            o, state = fused_mul_recurrent_rwkv7(
                r, w, k, v, kk, a, initial_state=state, output_final_state=call.writes, cu_seqlens=call.cu_seqlens
            )
        else:
            o, state = chunk_rwkv7(
                r, w, k, v, -kk, kk * a, 1.0, state, output_final_state=call.writes, cu_seqlens=call.cu_seqlens
            )
        call.write(recurrent_state=state, conv_state=last)
        o = gate_output_correction(self.g_norm(o.flatten(-2)), r, k, self.r_k, v, g)
        return self.o_proj(o), v_first

    def _drawn(
        self, v: torch.Tensor, xv: torch.Tensor, v_first: torch.Tensor | None, call: Call
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The values, drawn towards those of the first layer, and these, padded as the caller's batch is."""
        padding = call.padding
        if not self.layer_idx or v_first is None:
            first, v_first = v, v if padding is None else padding.pad(v)
        else:
            first = v_first if padding is None else padding.unpad(v_first)
        # A layer's own values are the first ones if attention stands in place of the first layer.
        return (torch.lerp(v, first, torch.sigmoid(self.v_lora(xv))) if self.layer_idx else v), v_first

    def initial_values(self, num_hidden_layers: int) -> dict[str, torch.Tensor]:
        """Initial values of the paper by name; they depend on the height of the layer.

        Args:
            num_hidden_layers: layers of the model; ``layer_idx`` counts from 0.
        """
        height, channel = height_of(self.layer_idx, num_hidden_layers), ramp(self.hidden_size)
        line, in_head = _line(self.key_dim), 2 * _line(self.head_dim).repeat(self.num_heads)
        wave = in_head * in_head.abs()
        values = {
            **{f"x_{part}": (1 - channel ** (power * height.falling))[None, None] for part, power in PARTS.items()},
            "k_k": 0.71 - 0.1 * line,
            "k_a": torch.full((self.key_dim,), 1.02),
            "r_k": torch.full((self.num_heads, self.head_dim), -0.04),
            "r_proj.weight": _orthogonal(self.r_proj),
            "k_proj.weight": _orthogonal(self.k_proj, 0.1),
            "v_proj.weight": _orthogonal(self.v_proj),
            "o_proj.weight": torch.zeros(self.hidden_size, self.value_dim),
            "w_lora.lora.2.bias": 6 * (line + 0.5) ** (1 + height.rising**0.3) - 5.5 + 2.5 * wave,
            "a_lora.lora.2.bias": 0.3 * wave + 0.4 * line - 0.19,
        }
        if self.layer_idx:
            values["v_lora.lora.2.bias"] = 0.73 - 0.4 * _line(self.value_dim)
        for name, lora in self.named_children():
            if isinstance(lora, LoRA):
                down, _, up = lora.lora
                assert isinstance(down, nn.Linear)
                assert isinstance(up, nn.Linear)
                values[f"{name}.lora.0.weight"] = torch.zeros_like(down.weight)
                values[f"{name}.lora.2.weight"] = _orthogonal(up, 0.1 * max(up.in_features / up.out_features, 1) ** 0.5)
        if self.g_norm.weight is not None:
            top = (1 + (self.layer_idx or 0)) / max(num_hidden_layers, 1 + (self.layer_idx or 0))
            values["g_norm.weight"] = torch.full((self.value_dim,), top**0.7)
        return values


class RWKV7FeedForward(Mixer):
    r"""The channel mixing of RWKV-7 (arXiv 2503.14456).

    .. math:: y_t = W_v\, \phi(W_k(x_t + \mu_k \Delta_t))

    with :math:`\Delta_t = x_{t-1} - x_t`. It comes after the mixer of the same layer, which counts the steps; the last
    token is cached.

    Args:
        hidden_size: channels in and out.
        hidden_ratio: hidden channels over ``hidden_size``; 4 unless given.
        intermediate_size: hidden channels; from ``hidden_ratio``, rounded up to a multiple of 32, unless given.
        hidden_act: activation by its name in ``fla.modules.ACT2FN``.
        layer_idx: the layer's place in the cache.
        num_hidden_layers: layers of the model; initial values depend on it.

    Raises:
        ValueError: an unknown activation.
    """

    undecayed: ClassVar[tuple[str, ...]] = ("x_k",)
    counts_steps = False

    def __init__(
        self,
        hidden_size: int,
        hidden_ratio: float | None = None,
        intermediate_size: int | None = None,
        hidden_act: str = "sqrelu",
        layer_idx: int | None = None,
        num_hidden_layers: int | None = None,
    ) -> None:
        super().__init__(hidden_size, layer_idx)
        check_choice("hidden_act", hidden_act, ACT2FN)
        intermediate_size = hidden_channels(hidden_size, 4 if hidden_ratio is None else hidden_ratio, intermediate_size)
        self.hidden_act = hidden_act
        self.x_k = nn.Parameter(torch.zeros(hidden_size))
        self.key = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.value = nn.Linear(intermediate_size, hidden_size, bias=False)
        set_initial_values(self, num_hidden_layers or 1)

    def mix(self, x: torch.Tensor, call: Call, **shared: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """Keys of the mixture, activated and projected back."""
        delta, last = token_shift(x, call.cu_seqlens, call.read("ffn_state"), output_cache=True)
        call.write(ffn_state=last)
        return (self.value(ACT2FN[self.hidden_act](self.key(torch.addcmul(x, delta, self.x_k)))),)

    def initial_values(self, num_hidden_layers: int) -> dict[str, torch.Tensor]:
        """Initial values of the paper by name; see :meth:`RWKV7Attention.initial_values`."""
        falling = height_of(self.layer_idx, num_hidden_layers).falling
        return {
            "x_k": 1 - ramp(self.hidden_size) ** falling**4,
            "key.weight": _orthogonal(self.key),
            "value.weight": torch.zeros(self.hidden_size, self.value.in_features),
        }


def _heads(hidden_size: int, head_dim: int | None, num_heads: int | None) -> tuple[int, int]:
    """Heads and the key channels of each, where either may follow from the other."""
    if head_dim is None:
        if num_heads is None:
            raise ValueError("head_dim, num_heads: expected at least one of the two, got None for both")
        check_divisible("hidden_size", hidden_size, "num_heads", num_heads)
        return num_heads, hidden_size // num_heads
    check_divisible("hidden_size", hidden_size, "head_dim", head_dim)
    if num_heads not in (None, hidden_size // head_dim):
        raise ValueError(
            f"num_heads: expected {hidden_size // head_dim}, which is hidden_size / head_dim, or None, got {num_heads}"
        )
    return hidden_size // head_dim, head_dim


def _rank(hidden_size: int, factor: float) -> int:
    """The rank of a projection: a multiple of 32 that grows with the root of the channels."""
    return max(32, round(factor * math.sqrt(hidden_size) / 32) * 32)


def _line(channels: int) -> torch.Tensor:
    """Numbers that rise from -1/2 to 1/2 over the channels."""
    return torch.arange(channels, dtype=torch.float32) / max(channels - 1, 1) - 0.5


def _orthogonal(linear: nn.Linear, gain: float = 1.0) -> torch.Tensor:
    """A new weight for this projection whose rows or columns are orthogonal and of length ``gain``."""
    return nn.init.orthogonal_(torch.empty(linear.out_features, linear.in_features, dtype=torch.float32), gain)
