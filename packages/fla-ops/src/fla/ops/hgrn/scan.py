"""Host side of the elementwise recurrence: the registered ops, what is saved, and which backend runs."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from fla.ops._arguments import sum_dtype
from fla.ops.hgrn.scan_torch import scan_bwd_torch, scan_fwd_torch
from fla.utils._registration import register_op
from fla.utils._validation import count_sequences


def _fwd(
    x: torch.Tensor,
    g: torch.Tensor,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    if backend == "torch":
        return scan_fwd_torch(x, g, initial_state, cu_seqlens)
    from fla.ops.hgrn.scan_triton import scan_fwd_triton

    return scan_fwd_triton(x, g, initial_state, cu_seqlens)


def _fwd_fake(
    x: torch.Tensor,
    g: torch.Tensor,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    return x.new_empty(x.shape), _state_like(x, cu_seqlens)


def _bwd(
    g: torch.Tensor,
    o: torch.Tensor,
    initial_state: torch.Tensor | None,
    do: torch.Tensor,
    dfinal_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    if backend == "torch":
        return scan_bwd_torch(g, o, initial_state, do, dfinal_state, cu_seqlens)
    from fla.ops.hgrn.scan_triton import scan_bwd_triton

    return scan_bwd_triton(g, o, initial_state, do, dfinal_state, cu_seqlens)


def _bwd_fake(
    g: torch.Tensor,
    o: torch.Tensor,
    initial_state: torch.Tensor | None,
    do: torch.Tensor,
    dfinal_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return o.new_empty(o.shape), g.new_empty(g.shape), _state_like(o, cu_seqlens)


def _state_like(x: torch.Tensor, cu_seqlens: torch.Tensor | None) -> torch.Tensor:
    return x.new_empty((count_sequences(cu_seqlens, x.shape[0]), x.shape[2]), dtype=sum_dtype(x))


hgrn_fwd = register_op(
    "hgrn_fwd",
    "(Tensor x, Tensor g, Tensor? initial_state, Tensor? cu_seqlens, str backend) -> (Tensor, Tensor)",
    _fwd,
    _fwd_fake,
)
hgrn_bwd = register_op(
    "hgrn_bwd",
    "(Tensor g, Tensor o, Tensor? initial_state, Tensor do, Tensor? dfinal_state, Tensor? cu_seqlens, str backend)"
    " -> (Tensor, Tensor, Tensor)",
    _bwd,
    _bwd_fake,
)


class HGRNFunction(torch.autograd.Function):
    """Saves the decays and the outputs, which are the states; the inputs are not needed again."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        g: torch.Tensor,
        initial_state: torch.Tensor | None,
        cu_seqlens: torch.Tensor | None,
        backend: str,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        o, final_state = hgrn_fwd(x, g, initial_state, cu_seqlens, backend)
        ctx.save_for_backward(g, o, initial_state, cu_seqlens)
        ctx.backend = backend
        ctx.set_materialize_grads(False)
        return o, final_state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, do: torch.Tensor | None, dfinal_state: torch.Tensor | None) -> tuple[Any, ...]:
        g, o, initial_state, cu_seqlens = ctx.saved_tensors
        do = torch.zeros_like(o) if do is None else do
        dx, dg, dinitial_state = hgrn_bwd(g, o, initial_state, do, dfinal_state, cu_seqlens, ctx.backend)
        return dx, dg, None if initial_state is None else dinitial_state.to(initial_state.dtype), None, None


def run_scan(
    x: torch.Tensor,
    g: torch.Tensor,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """:func:`fla.ops.hgrn.chunk_hgrn` on checked arguments."""
    return HGRNFunction.apply(x, g, initial_state, cu_seqlens, backend)  # type: ignore[no-untyped-call,no-any-return]
