"""Launchers of the token shift kernels."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton

from fla.modules.convolution.launch import time_blocks
from fla.modules.token_shift import kernels
from fla.utils.plans import launch
from fla.utils.tiles import TileKey, TileTable, power_of_two, tile_key


class ShiftTile(NamedTuple):
    """A block of ``steps`` by ``channels``."""

    steps: int
    channels: int
    warps: int


def _tile(key: TileKey) -> ShiftTile:
    # Wide enough that a row of the block fills whole memory transactions, tall enough that few rows are loaded twice.
    channels = min(power_of_two(key.key_dim, 1), 256)
    return ShiftTile(4096 // channels, channels, 4)


SHIFT_TILES: TileTable[ShiftTile] = TileTable(_tile)


def shift_fwd(x: torch.Tensor, cache: torch.Tensor | None, cu_seqlens: torch.Tensor | None) -> torch.Tensor:
    """Differences ``[B, T, D]``; cache ``[N, D]``."""
    x = x.contiguous()
    total, channels = x.shape[1:]
    tile = SHIFT_TILES.choose(tile_key(x, 0))
    blocks = time_blocks(x, cu_seqlens, tile.steps)
    y = torch.empty_like(x)
    launch(
        kernels.token_shift_fwd_kernel,
        (blocks.total, triton.cdiv(channels, tile.channels)),
        x,
        None if cache is None else cache.contiguous(),
        y,
        cu_seqlens,
        blocks.sequence,
        blocks.first_block,
        total,
        D=channels,
        BT=tile.steps,
        BD=tile.channels,
        PACKED=cu_seqlens is not None,
        num_warps=tile.warps,
    )
    return y


def shift_bwd(
    dy: torch.Tensor, cu_seqlens: torch.Tensor | None, cache_dtype: torch.dtype | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of x and of the cache ``[N, D]``, the latter empty where there is none."""
    dy = dy.contiguous()
    batch, total, channels = dy.shape
    tile = SHIFT_TILES.choose(tile_key(dy, 0))
    blocks = time_blocks(dy, cu_seqlens, tile.steps)
    dx = torch.empty_like(dy)
    if cache_dtype is None:
        dcache = dy.new_empty(0)
    elif cu_seqlens is None:
        dcache = dy.new_empty(batch, channels, dtype=cache_dtype)
    else:  # no program writes the gradient of an empty sequence's
        dcache = dy.new_zeros(cu_seqlens.shape[0] - 1, channels, dtype=cache_dtype)
    launch(
        kernels.token_shift_bwd_kernel,
        (blocks.total, triton.cdiv(channels, tile.channels)),
        dy,
        dx,
        None if cache_dtype is None else dcache,
        cu_seqlens,
        blocks.sequence,
        blocks.first_block,
        total,
        D=channels,
        BT=tile.steps,
        BD=tile.channels,
        PACKED=cu_seqlens is not None,
        num_warps=tile.warps,
    )
    return dx, dcache
