"""Mamba (arXiv 2312.00752) as a layer."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import nn

from fla.layers.base import Call, Mixer, check_choice
from fla.layers.mamba2 import BACKENDS
from fla.modules import ShortConvolution
from fla.modules._bare import is_bare_linear
from fla.modules._initial import set_initial_values
from fla.ops.mamba import selective_scan

DT_INITS = ("random", "constant")


class Mamba(Mixer):
    r"""Mamba's selective state space (arXiv 2312.00752).

    .. math::
        x_t, z_t = W x^{in}_t, \qquad d_t, B_t, C_t = W_x x_t, \qquad \delta_t = \mathrm{softplus}(W_\delta d_t + b), \\
        h_t = e^{-\delta_t e^{A}} \odot h_{t-1} + \delta_t\, x_t B_t^\top, \qquad
        y_t = (h_t C_t + D \odot x_t) \odot \mathrm{silu}(z_t)

    with a short convolution and SiLU on x before; then the output projection. Steps, decays and the state
    ``[N, intermediate_size, state_size]`` are kept in float32.

    Args:
        hidden_size: channels in and out.
        state_size: the size of the state of each channel.
        conv_kernel: width of the convolution.
        use_conv_bias: whether it has a bias.
        intermediate_size: channels of the recurrence.
        dt_rank: rank of the projection to steps; ``"auto"`` for ``hidden_size / 16``, rounded up.
        dt_min: lower bound of the initial steps, which are uniform in logarithm.
        dt_max: upper bound of the initial steps.
        dt_init: initial weights of their projection: ``"random"``, uniform, or ``"constant"``.
        dt_scale: bound of these weights, times the root of ``dt_rank``.
        dt_init_floor: least initial step.
        use_bias: whether the projections in and out have a bias.
        hidden_act: activation after the convolution, ``"silu"`` or its other name ``"swish"``.
        layer_idx: the layer's place in the cache.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``, for scan and convolution; by device where it is None or
            ``"cuda"``.

    Raises:
        ValueError: an unknown activation, backend or way to begin, or a ``dt_rank`` below 1.
    """

    undecayed: ClassVar[tuple[str, ...]] = ("A_log", "D")

    def __init__(
        self,
        hidden_size: int = 2048,
        state_size: int = 16,
        conv_kernel: int = 4,
        use_conv_bias: bool = True,
        intermediate_size: int = 2048,
        dt_rank: int | str = "auto",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init: str = "random",
        dt_scale: float = 1.0,
        dt_init_floor: float = 1e-4,
        use_bias: bool = False,
        hidden_act: str = "silu",
        layer_idx: int | None = None,
        backend: str | None = None,
    ) -> None:
        super().__init__(hidden_size, layer_idx)
        check_choice("hidden_act", hidden_act, ("silu", "swish"))
        check_choice("dt_init", dt_init, DT_INITS)
        check_choice("backend", backend, BACKENDS)
        rank = math.ceil(hidden_size / 16) if dt_rank == "auto" else dt_rank
        if not isinstance(rank, int) or rank < 1:
            raise ValueError(f"dt_rank: expected 'auto' or at least 1, got {dt_rank!r}")
        self.state_size, self.intermediate_size, self.dt_rank = state_size, intermediate_size, rank
        self.dt_min, self.dt_max, self.dt_init_floor = dt_min, dt_max, dt_init_floor
        self.dt_init, self.dt_scale = dt_init, dt_scale
        self.backend = None if backend == "cuda" else backend

        self.conv1d = ShortConvolution(
            intermediate_size, conv_kernel, use_conv_bias, activation=hidden_act, backend=self.backend
        )
        self.in_proj = nn.Linear(hidden_size, 2 * intermediate_size, bias=use_bias)
        self.x_proj = nn.Linear(intermediate_size, rank + 2 * state_size, bias=False)
        self.dt_proj = nn.Linear(rank, intermediate_size)
        self.A_log = nn.Parameter(torch.empty(intermediate_size, state_size))
        self.D = nn.Parameter(torch.empty(intermediate_size))
        self.out_proj = nn.Linear(intermediate_size, hidden_size, bias=use_bias)
        set_initial_values(self)

    def initial_values(self, num_hidden_layers: int) -> dict[str, torch.Tensor]:
        """Initial values of the recurrence and its convolution by name, newly drawn."""
        bound = self.conv1d.kernel_size[0] ** -0.5
        filters = torch.empty(self.conv1d.weight.shape, dtype=torch.float32).uniform_(-bound, bound)
        rates = torch.arange(1, self.state_size + 1, dtype=torch.float32).log()
        bound = self.dt_scale * self.dt_rank**-0.5
        weight = torch.full((self.intermediate_size, self.dt_rank), bound, dtype=torch.float32)
        if self.dt_init == "random":
            weight.uniform_(-bound, bound)
        spread = torch.empty(self.intermediate_size, dtype=torch.float32)
        step = spread.uniform_(math.log(self.dt_min), math.log(self.dt_max)).exp().clamp(min=self.dt_init_floor)
        return {
            "conv1d.weight": filters,
            "A_log": rates.repeat(self.intermediate_size, 1),
            "D": torch.ones(self.intermediate_size),
            "dt_proj.weight": weight,
            # The inverse of softplus.
            "dt_proj.bias": step + torch.log(-torch.expm1(-step)),
        }

    def mix(self, x: torch.Tensor, call: Call, **shared: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """Inputs of x, their steps, B and C, the recurrence with its gate, and the output."""
        inputs, z = self.in_proj(x).chunk(2, -1)
        (inputs,), conv_state = call.convolve((self.conv1d,), (inputs,))
        step, B, C = self.x_proj(inputs).split([self.dt_rank, self.state_size, self.state_size], -1)
        step, step_bias = self._steps(step)
        y, state = selective_scan(
            inputs.transpose(1, 2),
            step.transpose(1, 2),
            -self.A_log.to(torch.promote_types(self.A_log.dtype, torch.float32)).exp(),
            B.transpose(1, 2),
            C.transpose(1, 2),
            D=self.D,
            z=z.transpose(1, 2),
            delta_bias=step_bias,
            delta_softplus=True,
            initial_state=call.read("recurrent_state"),
            return_last_state=True,
            cu_seqlens=call.cu_seqlens,
            backend=self.backend,
        )
        call.write(recurrent_state=state, conv_state=conv_state)
        return (self.out_proj(y.transpose(1, 2)),)

    def _steps(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        if is_bare_linear(self.dt_proj):
            # The bias is added in float32, where narrower numbers would blur the steps.
            return nn.functional.linear(x, self.dt_proj.weight), self.dt_proj.bias
        return self.dt_proj(x), None
