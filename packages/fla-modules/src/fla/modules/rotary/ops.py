"""Host side of the rotary embedding on a GPU: the registered op and its gradient, the turn back."""

from __future__ import annotations

from typing import Any

import torch

from fla.modules._checks import needs_gradient
from fla.modules.rotary.positions import Tables
from fla.utils.derivatives import first_order
from fla.utils.registration import register_op


def _rotary(
    q: torch.Tensor,
    k: torch.Tensor | None,
    cos: torch.Tensor,
    sin: torch.Tensor,
    cos_k: torch.Tensor | None,
    sin_k: torch.Tensor | None,
    offsets: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    offset: int,
    interleaved: bool,
    conjugate: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return q and k turned."""
    raise NotImplementedError


def _rotary_fake(q: torch.Tensor, k: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    return q.new_empty(q.shape), q.new_empty(0) if k is None else k.new_empty(k.shape)


rotary = register_op("rotary", _rotary, _rotary_fake, launch="fla.modules.rotary.launch:rotary", varying=("offset",))


class RotaryFunction(torch.autograd.Function):
    """Saves the tables."""

    @staticmethod
    def forward(
        ctx: Any,
        q: torch.Tensor,
        k: torch.Tensor | None,
        cos: torch.Tensor,
        sin: torch.Tensor,
        cos_k: torch.Tensor | None,
        sin_k: torch.Tensor | None,
        offsets: torch.Tensor | None,
        cu_seqlens: torch.Tensor | None,
        offset: int,
        interleaved: bool,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        ctx.save_for_backward(cos, sin, cos_k, sin_k, offsets, cu_seqlens)
        ctx.offset, ctx.interleaved = offset, interleaved
        y_q, y_k = rotary(q, k, cos, sin, cos_k, sin_k, offsets, cu_seqlens, offset, interleaved, False)
        return y_q if k is None else (y_q, y_k)

    @staticmethod
    @first_order("rotary_embedding")
    def backward(
        ctx: Any, saved: tuple[Any, ...], dy_q: torch.Tensor, dy_k: torch.Tensor | None = None
    ) -> tuple[Any, ...]:
        dq, dk = rotary(dy_q, dy_k, *saved, ctx.offset, ctx.interleaved, True)
        return dq, None if dy_k is None else dk, *(None,) * 8


def run_rotary(
    q: torch.Tensor,
    k: torch.Tensor | None,
    tables: Tables,
    interleaved: bool,
    offset: int,
    offsets: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """:func:`fla.modules.rotary.api.rotate` on checked arguments."""
    arguments = q, k, *tables, offsets, cu_seqlens, offset, interleaved
    if needs_gradient(q, k):
        turned = RotaryFunction.apply(*arguments)  # type: ignore[no-untyped-call]
        return (turned, None) if k is None else turned
    y_q, y_k = rotary(*arguments, False)
    return y_q, None if k is None else y_k
