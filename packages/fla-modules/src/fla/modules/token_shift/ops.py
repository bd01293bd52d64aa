"""Host side of the token shift on a GPU: the registered ops and their gradient."""

from __future__ import annotations

from typing import Any

import torch

from fla.modules._checks import needs_gradient
from fla.utils.derivatives import first_order
from fla.utils.registration import register_op
from fla.utils.validation import count_sequences

_LAUNCH = "fla.modules.token_shift.launch"


def _fwd(x: torch.Tensor, cache: torch.Tensor | None, cu_seqlens: torch.Tensor | None) -> torch.Tensor:
    """Return the token before minus the token."""
    raise NotImplementedError


def _fwd_fake(x: torch.Tensor) -> torch.Tensor:
    return x.new_empty(x.shape)


def _bwd(
    dy: torch.Tensor, cu_seqlens: torch.Tensor | None, cache_dtype: torch.dtype | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradients of x and the cache."""
    raise NotImplementedError


def _bwd_fake(
    dy: torch.Tensor, cu_seqlens: torch.Tensor | None, cache_dtype: torch.dtype | None
) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (0,) if cache_dtype is None else (count_sequences(cu_seqlens, dy.shape[0]), dy.shape[2])
    return dy.new_empty(dy.shape), dy.new_empty(shape, dtype=cache_dtype)


shift_fwd = register_op("token_shift_fwd", _fwd, _fwd_fake, launch=f"{_LAUNCH}:shift_fwd")
shift_bwd = register_op("token_shift_bwd", _bwd, _bwd_fake, launch=f"{_LAUNCH}:shift_bwd")


class TokenShiftFunction(torch.autograd.Function):
    """Linear, so that nothing but the boundaries is saved."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cache: torch.Tensor | None, cu_seqlens: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(cu_seqlens)
        ctx.cache_dtype = None if cache is None else cache.dtype
        return shift_fwd(x, cache, cu_seqlens)  # type: ignore[no-any-return]

    @staticmethod
    @first_order("token_shift")
    def backward(ctx: Any, saved: tuple[Any, ...], dy: torch.Tensor) -> tuple[Any, ...]:
        (cu_seqlens,) = saved
        dx, dcache = shift_bwd(dy, cu_seqlens, ctx.cache_dtype)
        return dx, None if ctx.cache_dtype is None else dcache, None


def run_shift_triton(x: torch.Tensor, cu_seqlens: torch.Tensor | None, cache: torch.Tensor | None) -> torch.Tensor:
    """:func:`fla.modules.token_shift.token_shift` without the last tokens, on checked arguments."""
    flat = None if cache is None else cache.reshape(-1, x.shape[2])
    if not needs_gradient(x, cache):
        return shift_fwd(x, flat, cu_seqlens)  # type: ignore[no-any-return]
    return TokenShiftFunction.apply(x, flat, cu_seqlens)  # type: ignore[no-untyped-call,no-any-return]
