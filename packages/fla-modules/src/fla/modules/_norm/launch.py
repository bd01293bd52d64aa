"""Launchers of the norm kernels."""

from __future__ import annotations

from functools import cache

import torch
import triton

from fla.modules._norm import kernels
from fla.modules._norm.tiles import BACKWARD_TILES, FORWARD_TILES
from fla.utils._tiles import tile_key


@cache
def _multiprocessors(device: torch.device) -> int:
    """Multiprocessors of a GPU; 2 where nothing is known (kernels interpreted or compiled only)."""
    if device.type != "cuda":
        return 2
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def norm_fwd(
    x: torch.Tensor,
    gate: torch.Tensor | None,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    kind: str,
    activation: str,
    eps: float,
    out_dtype: torch.dtype,
    total_dtype: torch.dtype | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The result, and ``x + residual`` in ``total_dtype`` (empty where that is None)."""
    x = x.contiguous()
    gate, weight, bias, residual = (None if t is None else t.contiguous() for t in (gate, weight, bias, residual))
    y = x.new_empty(x.shape, dtype=out_dtype)
    total = x.new_empty(0) if total_dtype is None else x.new_empty(x.shape, dtype=total_dtype)
    dim = x.shape[-1]
    rows = x.numel() // dim
    tile = FORWARD_TILES.choose(tile_key(x, 0 if gate is None else dim))
    kernels.norm_fwd_kernel[(triton.cdiv(rows, tile.rows),)](
        x,
        gate,
        weight,
        bias,
        residual,
        y,
        None if total_dtype is None else total,
        eps,
        rows,
        D=dim,
        BD=tile.channels,
        BR=tile.rows,
        KIND=kind,
        ACTIVATION=activation,
        num_warps=tile.warps,
    )
    return y, total


def norm_bwd(
    total: torch.Tensor,
    gate: torch.Tensor | None,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    dy: torch.Tensor,
    dtotal: torch.Tensor | None,
    kind: str,
    activation: str,
    eps: float,
    x_dtype: torch.dtype,
    residual_dtype: torch.dtype | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of x, residual, gate, weight and bias, empty for those that are not there.

    The residual's is empty as well where it would be the same tensor as that of x.
    """
    total, dy = total.contiguous(), dy.contiguous()
    gate, weight, bias, dtotal = (None if t is None else t.contiguous() for t in (gate, weight, bias, dtotal))
    dim = total.shape[-1]
    rows = total.numel() // dim
    tile = BACKWARD_TILES.choose(tile_key(total, 0 if gate is None else dim))
    programs = min(triton.cdiv(rows, tile.rows), tile.programs * _multiprocessors(total.device))
    empty = total.new_empty(0)
    dx = total.new_empty(total.shape, dtype=x_dtype)
    dresidual = empty if residual_dtype in (None, x_dtype) else total.new_empty(total.shape, dtype=residual_dtype)
    dgate = empty if gate is None else torch.empty_like(gate)
    dweight, dbias = (
        None if p is None else total.new_empty(programs, dim, dtype=torch.float32) for p in (weight, bias)
    )
    kernels.norm_bwd_kernel[(programs,)](
        total,
        gate,
        weight,
        bias,
        dy,
        dtotal,
        dx,
        None if dresidual is empty else dresidual,
        None if gate is None else dgate,
        dweight,
        dbias,
        eps,
        rows,
        D=dim,
        BD=tile.channels,
        BR=tile.rows,
        KIND=kind,
        ACTIVATION=activation,
        STAGES=tile.stages,
        num_warps=tile.warps,
    )
    return dx, dresidual, dgate, _sum_partials(dweight, weight, empty), _sum_partials(dbias, bias, empty)


def _sum_partials(partials: torch.Tensor | None, parameter: torch.Tensor | None, empty: torch.Tensor) -> torch.Tensor:
    if partials is None or parameter is None:
        return empty
    return partials.sum(0).to(parameter.dtype)
