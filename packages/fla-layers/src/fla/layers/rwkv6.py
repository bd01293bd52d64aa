"""RWKV-6 (arXiv 2404.05892) as layers: time mixing, and the channel mixing that goes with it."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from fla.layers._rwkv import height_of, hidden_channels, ramp
from fla.layers.base import MODES, Call, Mixer, check_choice, check_divisible
from fla.modules import ACT2FN, GroupNorm
from fla.modules._bare import is_bare_linear
from fla.modules._initial import set_initial_values
from fla.modules.token_shift import token_shift
from fla.ops.rwkv6 import chunk_rwkv6, fused_recurrent_rwkv6

#: Parts that are mixed of a token and the one before it, in the order of the parameters.
PARTS = ("r", "w", "k", "v", "g")


class LoRA(nn.Module):
    """A low-rank projection, ``up(activation(down(x)))``.

    Args:
        input_dim: channels in.
        output_dim: channels out.
        low_rank_dim: channels in between.
        bias: whether the second projection has one.
        activation: name of the activation in ``fla.modules.ACT2FN``; none where it is None.
    """

    undecayed: ClassVar[tuple[str, ...]] = ("lora.0.weight", "lora.2.weight")

    def __init__(
        self, input_dim: int, output_dim: int, low_rank_dim: int, bias: bool = True, activation: str | None = "tanh"
    ) -> None:
        super().__init__()
        check_choice("activation", activation, (None, *ACT2FN))
        self.activation = activation
        # The activation has a place of its own in the names that checkpoints know.
        down, up = nn.Linear(input_dim, low_rank_dim, bias=False), nn.Linear(low_rank_dim, output_dim, bias=bias)
        self.lora = nn.Sequential(down, nn.Identity(), up)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[..., input_dim]`` -> ``[..., output_dim]``."""
        low = self.lora[0](x)
        return self.lora[2](low if self.activation is None else ACT2FN[self.activation](low))  # type: ignore[no-any-return]


class DDLerpLinear(nn.Module):
    """A projection of something between a token and the one before it, as the data say: ``W (x + mu * delta)``.

    Args:
        input_dim: channels in.
        output_dim: channels out.
        low_rank_dim: channels in between; a full matrix unless given.
    """

    def __init__(self, input_dim: int, output_dim: int, low_rank_dim: int | None = None) -> None:
        super().__init__()
        self.linear = (
            nn.Linear(input_dim, output_dim, bias=False)
            if low_rank_dim is None
            else LoRA(input_dim, output_dim, low_rank_dim)
        )

    def forward(self, x: torch.Tensor, mu: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
        """Project ``x + mu * delta``; delta is the token before minus the token (see ``token_shift``)."""
        return self.linear(torch.addcmul(x, delta, mu))  # type: ignore[no-any-return]


class LerpLinear(DDLerpLinear):
    """:class:`DDLerpLinear` with learned shares ``mu`` of the token before, one for each channel."""

    undecayed: ClassVar[tuple[str, ...]] = ("mu",)

    def __init__(self, input_dim: int, output_dim: int, low_rank_dim: int | None = None) -> None:
        super().__init__(input_dim, output_dim, low_rank_dim)
        self.mu = nn.Parameter(torch.zeros(input_dim))

    def forward(self, x: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Project ``x + mu * delta``."""
        return super().forward(x, self.mu, delta)


class RWKV6Attention(Mixer):
    r"""The time mixing of RWKV-6 (arXiv 2404.05892).

    .. math::
        o_t = (S_{t-1} + \mathrm{diag}(u)\, k_t v_t^\top)^\top r_t, \qquad
        S_t = \mathrm{diag}(e^{-e^{w_t}})\, S_{t-1} + k_t v_t^\top

    per head; r, w, k, v and the output gate are projections of a token mixed with the one before it, in shares that
    depend on both. Then a group norm per head, the output gate and the output projection. The state is kept in
    float32, ``[N, num_heads, K, V]``, beside the last token; the decay is computed in float32.

    Args:
        mode: ``"chunk"`` or ``"fused_recurrent"``; ``"fused_chunk"`` is another name of the first. Short calls
            outside training take the recurrent form in any mode.
        hidden_size: channels in and out.
        expand_k: key channels of all heads over ``hidden_size``.
        expand_v: value channels of all heads over ``hidden_size``.
        num_heads: heads.
        gate_fn: activation of the output gate by its name in ``fla.modules.ACT2FN``.
        proj_low_rank_dim: rank of the projections to each of the five shares.
        gate_low_rank_dim: rank of the projection to the decay.
        fuse_norm: kept for the sake of existing configs: the norm is fused in any case.
        elementwise_affine: learn weight and bias of the norm of the output.
        norm_eps: added to its variance.
        layer_idx: the layer's place in the cache.

    Raises:
        ValueError: an unknown mode or activation, or sizes that the heads do not divide.
    """

    undecayed: ClassVar[tuple[str, ...]] = ("x_bias", "bonus", "x_proj.0.linear.weight", "x_proj.2.weight")

    def __init__(
        self,
        mode: str = "chunk",
        hidden_size: int = 1024,
        expand_k: float = 0.5,
        expand_v: float = 1.0,
        num_heads: int = 4,
        gate_fn: str = "swish",
        proj_low_rank_dim: int = 32,
        gate_low_rank_dim: int = 64,
        fuse_norm: bool = True,
        elementwise_affine: bool | None = True,
        norm_eps: float = 1e-5,
        layer_idx: int | None = None,
    ) -> None:
        super().__init__(hidden_size, layer_idx)
        check_choice("mode", mode, MODES)
        check_choice("gate_fn", gate_fn, ACT2FN)
        self.mode = mode
        self.gate_fn = gate_fn
        self.num_heads = num_heads
        self.key_dim, self.value_dim = int(hidden_size * expand_k), int(hidden_size * expand_v)
        check_divisible("hidden_size * expand_k", self.key_dim, "num_heads", num_heads)
        check_divisible("hidden_size * expand_v", self.value_dim, "num_heads", num_heads)
        self.head_k_dim, self.head_v_dim = self.key_dim // num_heads, self.value_dim // num_heads
        self.proj_low_rank_dim, self.gate_low_rank_dim = proj_low_rank_dim, gate_low_rank_dim

        rank = proj_low_rank_dim * len(PARTS)
        self.x_proj = nn.Sequential(
            LerpLinear(hidden_size, rank), nn.Identity(), nn.Linear(rank, hidden_size, bias=False)
        )
        self.x_bias = nn.Parameter(torch.zeros(len(PARTS), hidden_size))
        self.r_proj = DDLerpLinear(hidden_size, self.key_dim)
        self.w_proj = DDLerpLinear(hidden_size, self.key_dim, gate_low_rank_dim)
        self.k_proj = DDLerpLinear(hidden_size, self.key_dim)
        self.v_proj = DDLerpLinear(hidden_size, self.value_dim)
        self.g_proj = DDLerpLinear(hidden_size, self.value_dim)
        self.bonus = nn.Parameter(torch.zeros(num_heads, self.head_k_dim))
        self.g_norm = GroupNorm(num_heads, self.value_dim, bool(elementwise_affine), bias=True, eps=norm_eps)
        self.o_proj = nn.Linear(self.value_dim, hidden_size, bias=False)
        set_initial_values(self)

    def mix(self, x: torch.Tensor, call: Call, **shared: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """The shares of the tokens before, the projections of the mixtures, the recurrence, and the gated output."""
        delta, last = token_shift(x, call.cu_seqlens, call.read("conv_state"), output_cache=True)
        r, w, k, v, g = (
            project(x, mu, delta)
            for project, mu in zip(
                (self.r_proj, self.w_proj, self.k_proj, self.v_proj, self.g_proj), self._shares(x, delta)
            )
        )
        r, k, w = (y.unflatten(-1, (-1, self.head_k_dim)) for y in (r, k, -torch.exp(w.float())))
        o, state = (fused_recurrent_rwkv6 if self.is_recurrent(call) else chunk_rwkv6)(
            r,
            k,
            v.unflatten(-1, (-1, self.head_v_dim)),
            w,
            self.bonus,
            scale=1.0,
            initial_state=call.read("recurrent_state"),
            output_final_state=call.writes,
            cu_seqlens=call.cu_seqlens,
        )
        call.write(recurrent_state=state, conv_state=last)
        return (self.o_proj(self.g_norm(o.flatten(-2)) * ACT2FN[self.gate_fn](g)),)

    def _shares(self, x: torch.Tensor, delta: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The share of the token before in each part, ``[B, T, D]`` each."""
        down, _, up = self.x_proj
        low = torch.tanh(down(x, delta)).unflatten(-1, (len(PARTS), -1))
        return (_apply_by_part(up, low) + self.x_bias).unbind(-2)

    def initial_values(self, num_hidden_layers: int) -> dict[str, torch.Tensor]:
        """Initial values of the paper by name; they depend on the height of the layer.

        Args:
            num_hidden_layers: layers of the model; ``layer_idx`` counts from 0.
        """
        height, channel = height_of(self.layer_idx, num_hidden_layers), ramp(self.hidden_size)
        early = {part: 1 - channel ** (height.falling * (0.5 if part in "rg" else 1.0)) for part in PARTS}
        early["v"] = early["v"] - 0.3 * height.rising
        speed = -6 + 5 * torch.linspace(0, 1, self.key_dim) ** (0.7 + 1.3 * height.rising)
        n = torch.arange(self.key_dim)
        bonus = height.rising * (1 - n / max(self.key_dim - 1, 1)) + ((n + 1) % 3 - 1) * 0.1
        return {
            "x_proj.0.mu": early["w"],
            "x_proj.0.linear.weight": torch.zeros(len(PARTS) * self.proj_low_rank_dim, self.hidden_size),
            "x_bias": torch.stack([early[part] for part in PARTS]),
            "w_proj.linear.lora.0.weight": torch.zeros(self.gate_low_rank_dim, self.hidden_size),
            "w_proj.linear.lora.2.bias": speed,
            "bonus": bonus.view(self.num_heads, -1),
        }


def _apply_by_part(up: nn.Module, low: torch.Tensor) -> torch.Tensor:
    """Apply to each part of low ``[B, T, P, R]`` its own columns of the linear map ``[D, P R]``: ``[B, T, P, D]``."""
    parts = low.shape[-2]
    if is_bare_linear(up):
        weight = up.get_parameter("weight").unflatten(-1, (parts, -1))
        return torch.einsum("btpr,dpr->btpd", low, weight)
    # A call takes all columns: every part gets a row in which the columns of the others meet zeros.
    own = torch.eye(parts, dtype=torch.bool, device=low.device)[..., None]
    return up(low.unsqueeze(-2).where(own, 0).flatten(-2))  # type: ignore[no-any-return]


class RWKV6FeedForward(Mixer):
    r"""The channel mixing of RWKV-6 (arXiv 2404.05892).

    .. math:: y_t = \mathrm{sigmoid}(W_r(x_t + \mu_r \Delta_t)) \odot W_v\, \phi(W_k(x_t + \mu_k \Delta_t))

    with :math:`\Delta_t = x_{t-1} - x_t`. It comes after the mixer of the same layer, which counts the steps; the last
    token is cached.

    Args:
        hidden_size: channels in and out.
        hidden_ratio: hidden channels over ``hidden_size``; 3.5 unless given.
        intermediate_size: hidden channels; from ``hidden_ratio``, rounded up to a multiple of 32, unless given.
        hidden_act: activation by its name in ``fla.modules.ACT2FN``.
        layer_idx: the layer's place in the cache.

    Raises:
        ValueError: an unknown activation.
    """

    counts_steps = False

    def __init__(
        self,
        hidden_size: int,
        hidden_ratio: float | None = None,
        intermediate_size: int | None = None,
        hidden_act: str = "sqrelu",
        layer_idx: int | None = None,
    ) -> None:
        super().__init__(hidden_size, layer_idx)
        check_choice("hidden_act", hidden_act, ACT2FN)
        intermediate_size = hidden_channels(
            hidden_size, 3.5 if hidden_ratio is None else hidden_ratio, intermediate_size
        )
        self.hidden_act = hidden_act
        self.key = LerpLinear(hidden_size, intermediate_size)
        self.value = nn.Linear(intermediate_size, hidden_size, bias=False)
        self.receptance = LerpLinear(hidden_size, hidden_size)
        set_initial_values(self)

    def mix(self, x: torch.Tensor, call: Call, **shared: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """Keys of the mixture, activated and projected back, and gated."""
        delta, last = token_shift(x, call.cu_seqlens, call.read("ffn_state"), output_cache=True)
        value = self.value(ACT2FN[self.hidden_act](self.key(x, delta)))
        call.write(ffn_state=last)
        return (torch.sigmoid(self.receptance(x, delta)) * value,)

    def initial_values(self, num_hidden_layers: int) -> dict[str, torch.Tensor]:
        """Initial shares of the paper by name; see :meth:`RWKV6Attention.initial_values`."""
        share = 1 - ramp(self.hidden_size) ** height_of(self.layer_idx, num_hidden_layers).falling
        return {"key.mu": share, "receptance.mu": share}
