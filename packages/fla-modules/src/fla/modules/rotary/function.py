"""Host side of the rotary embedding on a GPU: the registered op and its gradient, the turn back."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from fla.modules._checks import needs_gradient
from fla.utils._registration import register_op


def _rotary(
    x: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    offsets: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    offset: int,
    interleaved: bool,
    conjugate: bool,
) -> torch.Tensor:
    from fla.modules.rotary.launch import rotary

    return rotary(x, cos, sin, offsets, cu_seqlens, offset, interleaved, conjugate)


def _rotary_fake(
    x: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    offsets: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    offset: int,
    interleaved: bool,
    conjugate: bool,
) -> torch.Tensor:
    return x.new_empty(x.shape)


rotary = register_op(
    "rotary",
    "(Tensor x, Tensor cos, Tensor sin, Tensor? offsets, Tensor? cu_seqlens, SymInt offset, bool interleaved,"
    " bool conjugate) -> Tensor",
    _rotary,
    _rotary_fake,
)


class RotaryFunction(torch.autograd.Function):
    """Saves the tables."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        offsets: torch.Tensor | None,
        cu_seqlens: torch.Tensor | None,
        offset: int,
        interleaved: bool,
    ) -> torch.Tensor:
        ctx.save_for_backward(cos, sin, offsets, cu_seqlens)
        ctx.offset, ctx.interleaved = offset, interleaved
        return rotary(x, cos, sin, offsets, cu_seqlens, offset, interleaved, False)  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[Any, ...]:
        return rotary(dy, *ctx.saved_tensors, ctx.offset, ctx.interleaved, True), *(None,) * 6


def run_rotary(
    x: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    interleaved: bool,
    offset: int,
    offsets: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
) -> torch.Tensor:
    """:func:`fla.modules.rotary.rotary_embedding` on checked arguments."""
    if not needs_gradient(x):
        return rotary(x, cos, sin, offsets, cu_seqlens, offset, interleaved, False)  # type: ignore[no-any-return]
    return RotaryFunction.apply(x, cos, sin, offsets, cu_seqlens, offset, interleaved)  # type: ignore[no-untyped-call,no-any-return]
