"""Host side of the short convolution on a GPU: the registered ops and their gradient."""

from __future__ import annotations

from typing import Any

import torch

from fla.modules._checks import needs_gradient
from fla.modules.convolution.reference import causal_conv1d_update_ref
from fla.utils.derivatives import first_order
from fla.utils.registration import register_op

_LAUNCH = "fla.modules.convolution.launch"


def _fwd(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    activate: bool,
) -> torch.Tensor:
    """Return the outputs."""
    raise NotImplementedError


def _fwd_fake(x: torch.Tensor) -> torch.Tensor:
    return x.new_empty(x.shape)


def _bwd(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    dy: torch.Tensor,
    activate: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the gradients of x, weight, bias and the initial state."""
    raise NotImplementedError


def _bwd_fake(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, initial_state: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    dx, dweight = x.new_empty(x.shape), weight.new_empty(weight.shape)
    dbias, dinitial_state = (x.new_empty(0) if p is None else p.new_empty(p.shape) for p in (bias, initial_state))
    return dx, dweight, dbias, dinitial_state


def _update(
    x: torch.Tensor,
    cache: torch.Tensor,
    residual: torch.Tensor | None,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    activate: bool,
    backend: str,
) -> torch.Tensor:
    """Return one step of every sequence, and write it into the cache."""
    raise NotImplementedError


conv_fwd = register_op("causal_conv1d_fwd", _fwd, _fwd_fake, launch=f"{_LAUNCH}:conv_fwd")
conv_bwd = register_op("causal_conv1d_bwd", _bwd, _bwd_fake, launch=f"{_LAUNCH}:conv_bwd")
conv_update = register_op(
    "causal_conv1d_update",
    _update,
    _fwd_fake,
    algorithm=causal_conv1d_update_ref,
    launch=f"{_LAUNCH}:conv_update",
    mutates=("cache",),
)


class CausalConv1dFunction(torch.autograd.Function):
    """Saves the inputs; the backward pass convolves again for the activation's derivative."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        residual: torch.Tensor | None,
        initial_state: torch.Tensor | None,
        activate: bool,
        cu_seqlens: torch.Tensor | None,
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight, bias, initial_state, cu_seqlens)
        ctx.activate, ctx.residual_dtype = activate, None if residual is None else residual.dtype
        return conv_fwd(x, weight, bias, residual, initial_state, cu_seqlens, activate)  # type: ignore[no-any-return]

    @staticmethod
    @first_order("causal_conv1d")
    def backward(ctx: Any, saved: tuple[Any, ...], dy: torch.Tensor) -> tuple[Any, ...]:
        x, weight, bias, initial_state, cu_seqlens = saved
        dx, dweight, dbias, dinitial_state = conv_bwd(x, weight, bias, initial_state, cu_seqlens, dy, ctx.activate)
        return (
            dx,
            dweight,
            None if bias is None else dbias,
            None if ctx.residual_dtype is None else dy.to(ctx.residual_dtype),
            None if initial_state is None else dinitial_state,
            None,
            None,
        )


def run_conv_triton(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    activate: bool,
    cu_seqlens: torch.Tensor | None,
) -> torch.Tensor:
    """:func:`fla.modules.convolution.causal_conv1d` without the final state, on checked arguments."""
    if not needs_gradient(x, weight, bias, residual, initial_state):
        return conv_fwd(x, weight, bias, residual, initial_state, cu_seqlens, activate)  # type: ignore[no-any-return]
    return CausalConv1dFunction.apply(  # type: ignore[no-untyped-call,no-any-return]
        x, weight, bias, residual, initial_state, activate, cu_seqlens
    )


def run_update(
    x: torch.Tensor,
    cache: torch.Tensor,
    residual: torch.Tensor | None,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    activate: bool,
    backend: str,
) -> torch.Tensor:
    """:func:`fla.modules.convolution.causal_conv1d_update` on checked arguments ``[N, D]``."""
    return conv_update(x, cache, residual, weight, bias, activate, backend)  # type: ignore[no-any-return]
