"""Launcher of the rotary embedding kernel."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
from torch.utils.weak import WeakTensorKeyDictionary

from fla.modules.rotary import kernels
from fla.modules.rotary.positions import token_positions
from fla.utils._tiles import TileKey, TileTable, power_of_two, tile_key


class RotaryTile(NamedTuple):
    """Rows in a block."""

    rows: int
    warps: int


def _tile(key: TileKey) -> RotaryTile:
    return RotaryTile(max(1, 2048 // power_of_two(key.key_dim, 1)), 4)


ROTARY_TILES: TileTable[RotaryTile] = TileTable(_tile)
_POSITIONS = WeakTensorKeyDictionary()


def _packed_positions(cu_seqlens: torch.Tensor, total: int) -> torch.Tensor:
    """Positions ``[T]`` within packed sequences, computed once for each ``cu_seqlens``."""
    key = (cu_seqlens._version, total)
    cached = _POSITIONS.get(cu_seqlens)
    if cached is None or cached[0] != key:
        cached = key, token_positions(1, total, cu_seqlens.device, 0, None, cu_seqlens)
        _POSITIONS[cu_seqlens] = cached
    return cached[1]  # type: ignore[no-any-return]


def rotary(
    x: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    offsets: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    offset: int,
    interleaved: bool,
    conjugate: bool,
) -> torch.Tensor:
    """x turned by its positions, or back (``conjugate``)."""
    x, cos, sin = x.contiguous(), cos.contiguous(), sin.contiguous()
    batch, total, heads, dim = x.shape
    length, half = cos.shape
    positions = None
    if cu_seqlens is not None and offsets is None:
        positions = _packed_positions(cu_seqlens, total)
    elif cu_seqlens is not None:
        positions = token_positions(batch, total, x.device, offset, offsets, cu_seqlens)
    y = torch.empty_like(x)
    rows = x.numel() // dim
    tile = ROTARY_TILES.choose(tile_key(x, 0))
    kernels.rotary_kernel[(triton.cdiv(rows, tile.rows),)](
        x,
        cos,
        sin,
        y,
        positions,
        offsets,
        offset,
        rows,
        length,
        total,
        H=heads,
        D=dim,
        R=2 * half,
        BR=tile.rows,
        BH=power_of_two(half, 1),
        BP=power_of_two(max(1, dim - 2 * half), 1),
        INTERLEAVED=interleaved,
        CONJUGATE=conjugate,
        num_warps=tile.warps,
    )
    return y
