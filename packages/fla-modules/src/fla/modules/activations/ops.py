"""Host side of the gated linear units on a GPU: the registered ops and what is saved for the backward pass."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from fla.modules._checks import needs_gradient
from fla.utils.derivatives import first_order
from fla.utils.registration import register_op

_LAUNCH = "fla.modules.activations.launch"


def _fwd(x: torch.Tensor, y: torch.Tensor, gate: str, power: float) -> torch.Tensor:
    """Return z."""
    raise NotImplementedError


def _fwd_fake(x: torch.Tensor) -> torch.Tensor:
    return x.new_empty(x.shape)


def _bwd(
    x: torch.Tensor, y: torch.Tensor, dz: torch.Tensor, gate: str, power: float, with_z: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the gradients of x and y, and z again if it is asked for."""
    raise NotImplementedError


def _bwd_fake(x: torch.Tensor, with_z: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape), x.new_empty(x.shape if with_z else 0)


glu_fwd = register_op("glu_fwd", _fwd, _fwd_fake, launch=f"{_LAUNCH}:glu_fwd")
glu_bwd = register_op("glu_bwd", _bwd, _bwd_fake, launch=f"{_LAUNCH}:glu_bwd")


class GLUFunction(torch.autograd.Function):
    """Saves x and y."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, y: torch.Tensor, gate: str, power: float) -> torch.Tensor:
        ctx.save_for_backward(x, y)
        ctx.gate, ctx.power = gate, power
        return glu_fwd(x, y, gate, power)  # type: ignore[no-any-return]

    @staticmethod
    @first_order("gated linear unit")
    def backward(ctx: Any, saved: tuple[Any, ...], dz: torch.Tensor) -> tuple[Any, ...]:
        dx, dy, _ = glu_bwd(*saved, dz, ctx.gate, ctx.power, False)
        return dx, dy, None, None


class SwiGLULinearFunction(torch.autograd.Function):
    """Saves x, y and the weight; the backward pass computes their product again on the way to its gradients."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(x, y, weight)
        return F.linear(glu_fwd(x, y, "swish", 1.0), weight, bias)

    @staticmethod
    @first_order("swiglu_linear")
    def backward(ctx: Any, saved: tuple[Any, ...], do: torch.Tensor) -> tuple[Any, ...]:
        x, y, weight = saved
        _, _, needs_weight, needs_bias = ctx.needs_input_grad
        dx, dy, z = glu_bwd(x, y, do @ weight, "swish", 1.0, needs_weight)
        do = do.reshape(-1, do.shape[-1])
        dweight = do.t() @ z.reshape(-1, z.shape[-1]) if needs_weight else None
        return dx, dy, dweight, do.sum(0) if needs_bias else None


def run_glu(x: torch.Tensor, y: torch.Tensor, gate: str, power: float) -> torch.Tensor:
    """A gated linear unit on checked arguments."""
    if not needs_gradient(x, y):
        return glu_fwd(x, y, gate, power)  # type: ignore[no-any-return]
    return GLUFunction.apply(x, y, gate, power)  # type: ignore[no-untyped-call,no-any-return]


def run_swiglu_linear(
    x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """:func:`fla.modules.activations.swiglu_linear` on checked arguments."""
    if not needs_gradient(x, y, weight, bias):
        return F.linear(run_glu(x, y, "swish", 1.0), weight, bias)
    return SwiGLULinearFunction.apply(x, y, weight, bias)  # type: ignore[no-untyped-call,no-any-return]
