"""Launcher of the rotary embedding kernel."""

from __future__ import annotations

from typing import NamedTuple

import torch

from fla.modules.rotary import kernels
from fla.modules.rotary.positions import Tables
from fla.utils.plans import launch
from fla.utils.tiles import TileKey, TileTable, power_of_two, tile_key
from fla.utils.validation import count_sequences


class RotaryTile(NamedTuple):
    """Rows in a block."""

    rows: int
    warps: int


def _tile(key: TileKey) -> RotaryTile:
    return RotaryTile(max(1, 2048 // power_of_two(key.key_dim, 1)), 4)


ROTARY_TILES: TileTable[RotaryTile] = TileTable(_tile)


def rotary(
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
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """q and k turned by their positions, or back (``conjugate``)."""
    q, k = q.contiguous(), None if k is None else k.contiguous()
    cos, sin, cos_k, sin_k = (x.contiguous() for x in (cos, sin, *Tables(cos, sin, cos_k, sin_k).of_keys))
    offsets = None if offsets is None else offsets.contiguous()
    batch, total, heads, dim = q.shape
    length, half = cos.shape
    y_q, y_k = torch.empty_like(q), None if k is None else torch.empty_like(k)
    tokens = batch * total
    key_heads = 0 if k is None else k.shape[2]
    tile = ROTARY_TILES.choose(tile_key(q, 0))
    launch(
        kernels.rotary_kernel,
        (-(-tokens * heads // tile.rows) - (-tokens * key_heads // tile.rows),),
        q,
        k,
        cos,
        sin,
        cos_k,
        sin_k,
        y_q,
        y_k,
        cu_seqlens,
        count_sequences(cu_seqlens, batch),
        offsets,
        offset,
        tokens,
        length,
        total,
        HQ=heads,
        HK=key_heads,
        D=dim,
        R=2 * half,
        BR=tile.rows,
        BH=power_of_two(half, 1),
        BP=power_of_two(max(1, dim - 2 * half), 1),
        INTERLEAVED=interleaved,
        CONJUGATE=conjugate,
        num_warps=tile.warps,
    )
    return y_q, y_k
