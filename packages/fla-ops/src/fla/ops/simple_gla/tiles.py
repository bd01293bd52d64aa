"""Tile sizes of the chunked kernels of linear attention with scalar decay."""

from __future__ import annotations

from typing import NamedTuple

from fla.utils._tiles import Block, TileKey, TileTable


class ChunkTile(NamedTuple):
    """The chunk length, a power of two, and the block of each kernel."""

    chunk: int
    state: Block
    output: Block
    value_grad: Block
    key_grad: Block


def _chunk_tile(key: TileKey) -> ChunkTile:
    if key.dtype_bytes == 4:
        wide = Block(32, 32, 4, 1)
        return ChunkTile(32, state=wide, output=wide, value_grad=wide, key_grad=wide)
    v = 128 if key.value_dim > 64 else 64
    if 0 < key.arch < 90:
        block = Block(64, 64, 4, 2)
        return ChunkTile(64, state=block, output=block, value_grad=block, key_grad=block._replace(k=32))
    return ChunkTile(
        chunk=64,
        state=Block(64, v, 4, 3),
        output=Block(64, v, 4, 2),
        value_grad=Block(64, v, 4, 2),
        key_grad=Block(64, 64, 4, 2),
    )


#: On Hopper and later half-precision blocks are never narrower than 64: see ``fla/ops/gla/tiles.py``.
CHUNK_TILES: TileTable[ChunkTile] = TileTable(_chunk_tile)
