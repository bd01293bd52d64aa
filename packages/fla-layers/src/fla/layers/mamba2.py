"""Mamba-2 (arXiv 2405.21060) as a layer."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import nn

from fla.layers.base import Call, Mixer, check_choice, check_divisible
from fla.modules import GroupNorm, ShortConvolution
from fla.modules._initial import set_initial_values
from fla.modules.activations import swiglu
from fla.ops.ssd import fused_recurrent_ssd, mamba_chunk_scan

#: Names of backends; ``"cuda"`` is the choice by device, as None is, by a name that existing programs pass.
BACKENDS = (None, "cuda", "triton", "torch", "reference")


class Mamba2(Mixer):
    r"""Mamba-2's state-space duality (arXiv 2405.21060).

    .. math::
        z_t, x_t, B_t, C_t, \delta_t = W x^{in}_t, \qquad \Delta_t = \mathrm{softplus}(\delta_t + dt), \\
        h_t = e^{-\Delta_t e^{A}}\, h_{t-1} + \Delta_t\, x_t B_t^\top, \qquad y_t = h_t C_t + D \odot x_t

    per head, with a short convolution and SiLU on x, B and C before; then the gate z, an RMS norm over the channels of
    each group and the output projection. Steps, decays and the state ``[N, num_heads, head_dim, state_size]`` are kept
    in float32.

    Args:
        num_heads: heads; must be ``hidden_size * expand / head_dim`` where given.
        head_dim: channels of a head.
        hidden_size: channels in and out.
        state_size: the size of the state of each channel.
        expand: channels of all heads together over ``hidden_size``.
        n_groups: groups of heads that share B and C, and that are normalised one by one.
        conv_kernel: width of the convolution.
        conv_init: bound of its uniform initial weights; by PyTorch's rule unless given.
        use_conv_bias: whether it has a bias.
        hidden_act: activation after the convolution, ``"silu"`` or its other name ``"swish"``.
        A_init_range: bounds of the initial rates, which are uniform.
        D_has_hdim: a factor D for each channel instead of each head.
        rmsnorm: normalise the output.
        norm_before_gate: gate what is normalised, instead of normalising what is gated.
        dt_min: lower bound of the initial steps, which are uniform in logarithm.
        dt_max: upper bound of the initial steps.
        dt_init_floor: least initial step.
        dt_limit: the least and the greatest step.
        use_bias: whether the projections have a bias.
        norm_eps: added to the mean square in the norm of the output.
        chunk_size: has no effect: chunks have the size that suits the device.
        layer_idx: the layer's place in the cache.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``, for scan and convolution; by device where it is None or
            ``"cuda"``.

    Raises:
        ValueError: sizes that do not fit, or an unknown activation or backend.
    """

    undecayed: ClassVar[tuple[str, ...]] = ("A_log", "D", "dt_bias")
    mode = "chunk"

    def __init__(
        self,
        num_heads: int | None = None,
        head_dim: int = 64,
        hidden_size: int = 2048,
        state_size: int = 128,
        expand: float = 2,
        n_groups: int = 1,
        conv_kernel: int = 4,
        conv_init: float | None = None,
        use_conv_bias: bool = True,
        hidden_act: str = "silu",
        A_init_range: tuple[float, float] = (1, 16),
        D_has_hdim: bool = False,
        rmsnorm: bool = True,
        norm_before_gate: bool = False,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init_floor: float = 1e-4,
        dt_limit: tuple[float, float] = (0.0, float("inf")),
        use_bias: bool = False,
        norm_eps: float = 1e-5,
        chunk_size: int = 256,
        layer_idx: int | None = None,
        backend: str | None = None,
    ) -> None:
        super().__init__(hidden_size, layer_idx)
        check_choice("hidden_act", hidden_act, ("silu", "swish"))
        check_choice("backend", backend, BACKENDS)
        self.intermediate_size = int(expand * hidden_size)
        check_divisible("hidden_size * expand", self.intermediate_size, "head_dim", head_dim)
        self.num_heads = self.intermediate_size // head_dim
        if num_heads not in (None, self.num_heads):
            raise ValueError(f"num_heads: expected hidden_size * expand / head_dim = {self.num_heads}, got {num_heads}")
        check_divisible("num_heads", self.num_heads, "n_groups", n_groups)
        self.head_dim, self.state_size, self.n_groups = head_dim, state_size, n_groups
        self.conv_init, self.A_init_range = conv_init, A_init_range
        self.dt_min, self.dt_max, self.dt_init_floor = dt_min, dt_max, dt_init_floor
        self.dt_limit = dt_limit
        self.norm_before_gate = norm_before_gate
        self.chunk_size = chunk_size
        self.backend = None if backend == "cuda" else backend

        self.conv_widths = [self.intermediate_size, n_groups * state_size, n_groups * state_size]
        self.in_widths = [self.intermediate_size, sum(self.conv_widths), self.num_heads]
        self.conv1d = ShortConvolution(
            sum(self.conv_widths), conv_kernel, use_conv_bias, activation=hidden_act, backend=self.backend
        )
        self.in_proj = nn.Linear(hidden_size, sum(self.in_widths), bias=use_bias)
        self.D = nn.Parameter(torch.empty(self.intermediate_size if D_has_hdim else self.num_heads))
        self.dt_bias = nn.Parameter(torch.empty(self.num_heads))
        self.A_log = nn.Parameter(torch.empty(self.num_heads))
        if rmsnorm:
            self.norm = GroupNorm(n_groups, self.intermediate_size, eps=norm_eps, is_rms_norm=True)
        self.out_proj = nn.Linear(self.intermediate_size, hidden_size, bias=use_bias)
        set_initial_values(self)

    def initial_values(self, num_hidden_layers: int) -> dict[str, torch.Tensor]:
        """Initial values of the recurrence and its convolution by name, newly drawn."""
        bound = self.conv1d.kernel_size[0] ** -0.5 if self.conv_init is None else self.conv_init
        filters = torch.empty(self.conv1d.weight.shape, dtype=torch.float32).uniform_(-bound, bound)
        rate, spread = (torch.empty(self.num_heads, dtype=torch.float32) for _ in range(2))
        rate.uniform_(*self.A_init_range)
        spread.uniform_(math.log(self.dt_min), math.log(self.dt_max))
        step = spread.exp().clamp(min=self.dt_init_floor)
        return {
            "conv1d.weight": filters,
            "D": torch.ones(self.D.shape),
            # The inverse of softplus.
            "dt_bias": step + torch.log(-torch.expm1(-step)),
            "A_log": rate.log(),
        }

    def mix(self, x: torch.Tensor, call: Call, **shared: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """Inputs, B, C and steps of x, the recurrence, and the gated and normalised output."""
        z, convolved, dt = self.in_proj(x).split(self.in_widths, -1)
        (convolved,), conv_state = call.convolve((self.conv1d,), (convolved,))
        inputs, B, C = convolved.split(self.conv_widths, -1)
        B, C = (y.unflatten(-1, (self.n_groups, self.state_size)) for y in (B, C))
        results = (fused_recurrent_ssd if self.is_recurrent(call) else mamba_chunk_scan)(
            inputs.unflatten(-1, (self.num_heads, self.head_dim)),
            dt,
            -self.A_log.to(torch.promote_types(self.A_log.dtype, torch.float32)).exp(),
            B,
            C,
            D=self.D if self.D.shape[0] == self.num_heads else self.D.unflatten(0, (self.num_heads, self.head_dim)),
            dt_bias=self.dt_bias,
            initial_states=call.read("recurrent_state"),
            cu_seqlens=call.cu_seqlens,
            dt_softplus=True,
            dt_limit=self.dt_limit,
            return_final_states=call.writes,
            backend=self.backend,
        )
        y, states = results if isinstance(results, tuple) else (results, None)
        call.write(recurrent_state=states, conv_state=conv_state)
        return (self.out_proj(self._gate(y.flatten(-2), z)),)

    def _gate(self, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        if not hasattr(self, "norm"):
            return swiglu(z, y)
        if self.norm_before_gate:
            return swiglu(z, self.norm(y))
        return self.norm(swiglu(z, y))  # type: ignore[no-any-return]
