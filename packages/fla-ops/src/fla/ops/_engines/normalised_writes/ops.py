"""Host side of normalised writes: the registered ops, what is saved for the backward pass, and which backend runs."""

from __future__ import annotations

from typing import Any

import torch

from fla.ops._engines.normalised_writes.algorithm import writes_bwd_torch, writes_fwd_torch
from fla.ops._shared.arguments import sum_dtype
from fla.utils.derivatives import first_order
from fla.utils.registration import register_op
from fla.utils.validation import count_sequences

Results = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]

_LAUNCH = "fla.ops._engines.normalised_writes.launch"


def _fwd(
    s: torch.Tensor,
    initial: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    dtype: torch.dtype,
    with_sums: bool,
    backend: str,
) -> Results:
    """Return the writes, the decays, the last sums, and every sum if they are asked for."""
    raise NotImplementedError


def _fwd_fake(s: torch.Tensor, cu_seqlens: torch.Tensor | None, dtype: torch.dtype, with_sums: bool) -> Results:
    decay = s.new_empty(s.shape, dtype=sum_dtype(s))
    last = decay.new_empty((count_sequences(cu_seqlens, s.shape[0]), *s.shape[2:]))
    return s.new_empty(s.shape, dtype=dtype), decay, last, decay.new_empty(s.shape if with_sums else 0)


def _bwd(
    write: torch.Tensor,
    decay: torch.Tensor,
    initial: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    dwrite: torch.Tensor | None,
    ddecay: torch.Tensor | None,
    dlast: torch.Tensor | None,
    dz: torch.Tensor | None,
    dtype: torch.dtype,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradients of s and of the initial sums."""
    raise NotImplementedError


def _bwd_fake(
    decay: torch.Tensor, initial: torch.Tensor | None, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    return decay.new_empty(decay.shape, dtype=dtype), decay.new_empty(0 if initial is None else initial.shape)


writes_fwd = register_op(
    "normalised_writes_fwd", _fwd, _fwd_fake, algorithm=writes_fwd_torch, launch=f"{_LAUNCH}:writes_fwd_triton"
)
writes_bwd = register_op(
    "normalised_writes_bwd", _bwd, _bwd_fake, algorithm=writes_bwd_torch, launch=f"{_LAUNCH}:writes_bwd_triton"
)


class _NormalisedWrites(torch.autograd.Function):
    """Both directions are linear recurrences, and what comes out of the first is all that the second needs."""

    @staticmethod
    def forward(
        ctx: Any,
        s: torch.Tensor,
        initial: torch.Tensor | None,
        cu_seqlens: torch.Tensor | None,
        dtype: torch.dtype,
        with_sums: bool,
        backend: str,
    ) -> Results:
        write, decay, last, z = writes_fwd(s, initial, cu_seqlens, dtype, with_sums, backend)
        ctx.save_for_backward(write, decay, initial, cu_seqlens)
        ctx.dtype, ctx.with_sums, ctx.backend = s.dtype, with_sums, backend
        ctx.set_materialize_grads(False)
        return write, decay, last, z

    @staticmethod
    @first_order("normalised_writes")
    def backward(
        ctx: Any,
        saved: tuple[Any, ...],
        dwrite: torch.Tensor | None,
        ddecay: torch.Tensor | None,
        dlast: torch.Tensor | None,
        dz: torch.Tensor | None,
    ) -> tuple[torch.Tensor | None, ...]:
        write, decay, initial, cu_seqlens = saved
        # A compiled program makes gradients even for what is empty.
        dz = dz if ctx.with_sums else None
        ds, dinitial = writes_bwd(write, decay, initial, cu_seqlens, dwrite, ddecay, dlast, dz, ctx.dtype, ctx.backend)
        return ds, None if initial is None else dinitial.to(initial.dtype), None, None, None, None


def run_writes(
    s: torch.Tensor,
    initial: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    dtype: torch.dtype,
    with_sums: bool,
    backend: str,
) -> Results:
    """:func:`fla.ops.utils.normalised_writes` on checked arguments, and z ``[B, T, ...]`` where ``with_sums``."""
    if torch.is_grad_enabled() and (s.requires_grad or (initial is not None and initial.requires_grad)):
        results: Results = _NormalisedWrites.apply(s, initial, cu_seqlens, dtype, with_sums, backend)  # type: ignore[no-untyped-call]
        return results
    # For decoding: autograd's function costs as much as a small step.
    return writes_fwd(s, initial, cu_seqlens, dtype, with_sums, backend)  # type: ignore[no-any-return]
