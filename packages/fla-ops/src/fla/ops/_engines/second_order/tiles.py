"""Tile sizes of the chunked kernels over second-order features."""

from __future__ import annotations

from typing import NamedTuple

from fla.utils.tiles import Block, TileKey, TileTable


class ChunkTile(NamedTuple):
    """The chunk length, a power of two, and the block of each kernel, whose ``k`` counts features."""

    chunk: int
    channels: int
    """K is padded to at least so many."""
    state: Block
    output: Block
    """Of the gradient of v as well."""
    grad: Block
    """Of q and of k."""


def _chunk_tile(key: TileKey) -> ChunkTile:
    if key.dtype_bytes == 4:
        wide = Block(32, 32, 4, 1)
        return ChunkTile(32, 16, state=wide, output=wide, grad=wide)
    v = 128 if key.value_dim > 64 else 64
    if 0 < key.arch < 90:
        block = Block(64, 64, 4, 2)
        return ChunkTile(64, 16, state=block, output=block, grad=block)
    # Deeper loads of gradients spill on Blackwell.
    grad = Block(64, 64, 4, 1 if key.arch >= 100 else 2)
    return ChunkTile(64, 64, state=Block(64, v, 4, 3), output=Block(64, v, 4, 2), grad=grad)


#: Half-precision blocks are never narrower than 64 on Hopper and later: see ``fla/ops/gla/tiles.py``.
CHUNK_TILES: TileTable[ChunkTile] = TileTable(_chunk_tile)
