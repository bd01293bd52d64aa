"""Launchers of the kernels of normalised writes: one launch each way, two where time is cut."""

from __future__ import annotations

import torch

from fla.ops._engines.normalised_writes import kernels
from fla.ops._engines.normalised_writes.tiles import ENOUGH_PROGRAMS, GRADIENT_TILES, WRITES_TILES
from fla.ops._engines.scan.launch import Plan
from fla.utils.plans import launch
from fla.utils.tiles import tile_key


def _flat(x: torch.Tensor | None, dims: int) -> torch.Tensor | None:
    """x with all dimensions after the first ``dims`` as one."""
    return None if x is None else x.reshape(*x.shape[:dims], -1).contiguous()


def writes_fwd_triton(
    s: torch.Tensor,
    initial: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    dtype: torch.dtype,
    with_sums: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Writes and decays ``[B, T, ...]``, the last sum of each sequence ``[N, ...]``, and all (empty unless asked)."""
    flat, start = _flat(s, 2), _flat(initial, 1)
    assert flat is not None
    plan = Plan.of(flat, cu_seqlens, WRITES_TILES.choose(tile_key(flat, flat.shape[2])), ENOUGH_PROGRAMS)
    write, decay = s.new_empty(s.shape, dtype=dtype), s.new_empty(s.shape, dtype=torch.float32)
    z = torch.empty_like(decay) if with_sums else None
    last, sums = plan.new_state(flat, start, -torch.inf), None
    if plan.is_cut:
        sums = flat.new_empty(plan.segments.total, flat.shape[2], dtype=torch.float32)
        launch(kernels.normalised_writes_summary_fwd_kernel, plan.grid, flat, sums, **plan.options(flat))
    launch(
        kernels.normalised_writes_fwd_kernel, plan.grid, flat, write, decay, z, start, last, sums, **plan.options(flat)
    )
    return write, decay, last.view(-1, *s.shape[2:]), s.new_empty(0, dtype=torch.float32) if z is None else z


def writes_bwd_triton(
    write: torch.Tensor,
    decay: torch.Tensor,
    initial: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    dwrite: torch.Tensor | None,
    ddecay: torch.Tensor | None,
    dlast: torch.Tensor | None,
    dz: torch.Tensor | None,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of s and of the initial sums (empty without those)."""
    flat, start, dend = _flat(write, 2), _flat(initial, 1), _flat(dlast, 1)
    assert flat is not None
    plan = Plan.of(flat, cu_seqlens, GRADIENT_TILES.choose(tile_key(flat, flat.shape[2])), ENOUGH_PROGRAMS)
    given = (flat, decay, *(_flat(x, 2) for x in (dwrite, ddecay, dz)), start)
    ds = write.new_empty(write.shape, dtype=dtype)
    dstart = None if start is None else plan.new_state(flat, dend)
    decays, sums = None, None
    if plan.is_cut:
        decays, sums = flat.new_empty(2, plan.segments.total, flat.shape[2], dtype=torch.float32)
        launch(kernels.normalised_writes_summary_bwd_kernel, plan.grid, *given, decays, sums, **plan.options(flat))
    launch(
        kernels.normalised_writes_bwd_kernel, plan.grid, *given, ds, dstart, dend, decays, sums, **plan.options(flat)
    )
    return ds, write.new_empty(0, dtype=torch.float32) if dstart is None else dstart.view(-1, *write.shape[2:])
