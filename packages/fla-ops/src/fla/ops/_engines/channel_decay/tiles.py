"""Tile sizes of the chunked gated linear attention kernels."""

from __future__ import annotations

from typing import NamedTuple

from fla.utils.tiles import Block, TileKey, TileTable


class ChunkTile(NamedTuple):
    """The chunk length, a power of two, and the block of each kernel."""

    chunk: int
    state: Block
    output: Block
    value_grad: Block
    key_grad: Block

    @property
    def levels(self) -> int:
        """How often the chunk can be halved."""
        return self.chunk.bit_length() - 1


def _chunk_tile(key: TileKey) -> ChunkTile:
    if key.dtype_bytes == 4:
        wide = Block(32, 32, 4, 1)
        return ChunkTile(32, state=wide, output=wide, value_grad=wide, key_grad=wide._replace(k=16))
    v = 128 if key.value_dim > 64 else 64
    if key.key_dim % 2 and key.value_dim % 2:
        # In 64 steps this key gradient spills a kilobyte a thread, and the compiler of CUDA 12.9 gets addresses wrong.
        block = Block(64, 64, 4, 1)
        return ChunkTile(32, state=block, output=block, value_grad=block, key_grad=block)
    if 0 < key.arch < 90:
        return ChunkTile(
            chunk=64,
            state=Block(64, 64, 4, 2),
            output=Block(32, 64, 4, 1),
            value_grad=Block(64, 64, 4, 2),
            key_grad=Block(32, 64, 4, 2),
        )
    return ChunkTile(
        chunk=64,
        state=Block(64, v, 4, 3),
        output=Block(64, v, 4, 2),
        value_grad=Block(64, v, 4, 2),
        key_grad=Block(64, 64, 4, 3),
    )


#: On Hopper and later half-precision blocks are never narrower than 64: below that, Triton 3.6's code for Hopper's
#: matrix instructions reads out of bounds when four warps share a tile.
CHUNK_TILES: TileTable[ChunkTile] = TileTable(_chunk_tile)
