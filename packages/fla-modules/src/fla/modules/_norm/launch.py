"""Launchers of the norm kernels."""

from __future__ import annotations

from functools import cache

import torch

from fla.modules._norm import kernels
from fla.modules._norm.tiles import BACKWARD_TILES, FORWARD_TILES
from fla.utils.plans import launch
from fla.utils.sum_launch import sum_parts
from fla.utils.tiles import TileKey, tile_key


@cache
def _multiprocessors(device: torch.device) -> int:
    """Multiprocessors of a GPU; 2 where nothing is known (kernels interpreted or compiled only)."""
    if device.type != "cuda":
        return 2
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def _contiguous(x: torch.Tensor | None) -> torch.Tensor | None:
    return None if x is None else x.contiguous()


def _key(x: torch.Tensor, dim: int, gate: torch.Tensor | None) -> TileKey:
    return tile_key(x, 0 if gate is None else dim)._replace(key_dim=dim)


def norm_fwd(
    x: torch.Tensor,
    gate: torch.Tensor | None,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    kind: str,
    activation: str,
    eps: float,
    groups: int,
    out_dtype: torch.dtype,
    total_dtype: torch.dtype | None,
    quantise: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The result, and ``x + residual`` in ``total_dtype``, None without."""
    x, gate, residual = x.contiguous(), _contiguous(gate), _contiguous(residual)
    weight, bias = _contiguous(weight), _contiguous(bias)
    y = x.new_empty(x.shape, dtype=out_dtype)
    total = None if total_dtype is None else x.new_empty(x.shape, dtype=total_dtype)
    dim = x.shape[-1] // groups
    rows = x.numel() // x.shape[-1]
    tile = FORWARD_TILES.choose(_key(x, dim, gate))
    launch(
        kernels.norm_fwd_kernel,
        (-(-rows // tile.rows) * groups,),
        x,
        gate,
        weight,
        bias,
        residual,
        y,
        total,
        eps,
        rows,
        G=groups,
        D=dim,
        BD=tile.channels,
        BR=tile.rows,
        KIND=kind,
        ACTIVATION=activation,
        QUANTISE=quantise,
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
    groups: int,
    x_dtype: torch.dtype,
    residual_dtype: torch.dtype | None,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """Gradients of x, residual, gate, weight and bias, None for those that are not there.

    The residual's is None as well where it would be the same tensor as that of x.
    """
    total, dy, gate, dtotal = total.contiguous(), dy.contiguous(), _contiguous(gate), _contiguous(dtotal)
    weight, bias = _contiguous(weight), _contiguous(bias)
    channels = total.shape[-1]
    dim, rows = channels // groups, total.numel() // channels
    tile = BACKWARD_TILES.choose(_key(total, dim, gate))
    programs = min(-(-rows // tile.rows), -(-tile.programs * _multiprocessors(total.device) // groups))
    dx = total.new_empty(total.shape, dtype=x_dtype)
    separate = residual_dtype not in (None, x_dtype)
    dresidual = total.new_empty(total.shape, dtype=residual_dtype) if separate else None
    dgate = None if gate is None else torch.empty_like(gate)
    learned = [p for p in (weight, bias) if p is not None]
    partials = total.new_empty(len(learned), programs, channels, dtype=torch.float32)
    launch(
        kernels.norm_bwd_kernel,
        (programs * groups,),
        total,
        gate,
        weight,
        bias,
        dy,
        dtotal,
        dx,
        dresidual,
        dgate,
        partials,
        eps,
        rows,
        G=groups,
        D=dim,
        BD=tile.channels,
        BR=tile.rows,
        KIND=kind,
        ACTIVATION=activation,
        STAGES=tile.stages,
        num_warps=tile.warps,
    )
    sums = [sum_parts(part, p.dtype) for part, p in zip(partials, learned)]
    dweight = None if weight is None else sums[0]
    return dx, dresidual, dgate, dweight, None if bias is None else sums[-1]
