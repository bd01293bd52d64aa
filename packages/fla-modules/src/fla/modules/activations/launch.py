"""Launchers of the gated linear unit kernels."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton

from fla.modules.activations import kernels
from fla.utils.plans import launch
from fla.utils.tiles import TileKey, TileTable, power_of_two, tile_key


class GLUTile(NamedTuple):
    """A block of ``rows`` by ``channels``."""

    rows: int
    channels: int
    warps: int


def _tile(key: TileKey) -> GLUTile:
    channels = min(1024, power_of_two(key.key_dim, 1))
    return GLUTile(1024 // channels, channels, 4)


GLU_TILES: TileTable[GLUTile] = TileTable(_tile)


def _as_rows(x: torch.Tensor) -> torch.Tensor:
    """``[rows, D]`` with contiguous channels; a view where rows have one stride, as halves of a projection do."""
    x = x.reshape(-1, x.shape[-1]) if x.ndim else x.reshape(1, 1)
    return x if x.stride(1) == 1 else x.contiguous()


def glu_fwd(x: torch.Tensor, y: torch.Tensor, gate: str, power: float) -> torch.Tensor:
    """``gate(x) * y`` in the shape and dtype of x."""
    z = x.new_empty(x.shape)
    x, y = _as_rows(x), _as_rows(y)
    rows, dim = x.shape
    tile = GLU_TILES.choose(tile_key(x, 0))
    launch(
        kernels.glu_fwd_kernel,
        (triton.cdiv(rows, tile.rows) * triton.cdiv(dim, tile.channels),),
        x,
        y,
        z,
        x.stride(0),
        y.stride(0),
        power,
        rows,
        D=dim,
        BD=tile.channels,
        BR=tile.rows,
        GATE=gate,
        num_warps=tile.warps,
    )
    return z


def glu_bwd(
    x: torch.Tensor, y: torch.Tensor, dz: torch.Tensor, gate: str, power: float, with_z: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Gradients of x and y, and z again where ``with_z``."""
    dx, dy = x.new_empty(x.shape), x.new_empty(x.shape)
    z = x.new_empty(x.shape) if with_z else None
    x, y = _as_rows(x), _as_rows(y)
    rows, dim = x.shape
    tile = GLU_TILES.choose(tile_key(x, 0))
    launch(
        kernels.glu_bwd_kernel,
        (triton.cdiv(rows, tile.rows) * triton.cdiv(dim, tile.channels),),
        x,
        y,
        dz.contiguous(),
        dx,
        dy,
        z,
        x.stride(0),
        y.stride(0),
        power,
        rows,
        D=dim,
        BD=tile.channels,
        BR=tile.rows,
        GATE=gate,
        num_warps=tile.warps,
    )
    return dx, dy, z
