"""Tile sizes of the gated delta rule's kernels."""

from __future__ import annotations

from typing import NamedTuple

import torch

from fla.utils.tiles import Block, TileKey, TileTable, power_of_two

#: The widest key a kernel holds: its walk over time keeps all of K in one block.
WIDEST = 256


def halves(dtype: torch.dtype) -> int:
    """Of how many matrices the corrections of a chunk are the sum."""
    return 1 if dtype == torch.float32 else 2


class ChunkTile(NamedTuple):
    """The chunk length, a power of two, and the block of each kernel."""

    chunk: int
    pairs: Block
    walk: Block
    walk_back: Block
    pair_grad: Block
    key_grad: Block

    @property
    def levels(self) -> int:
        """How often the chunk can be halved."""
        return self.chunk.bit_length() - 1


def chunk_tile(key: TileKey) -> ChunkTile:
    """What the table says where it has no entry."""
    k = power_of_two(key.key_dim)
    if key.dtype_bytes == 4:
        narrow = Block(32, 32, 4, 1)
        walk = Block(k, 16 if k > 128 or 0 < key.arch < 90 else 32, 4, 1)
        return ChunkTile(16, pairs=narrow, walk=walk, walk_back=walk, pair_grad=narrow, key_grad=narrow)
    # Matrices of 32 steps go to tensor cores two warps at a time, and with them nearly everything fits in registers.
    narrow = Block(64, 64, 2, 1)
    if 0 < key.arch < 90 or key.arch >= 100:
        walk = Block(k, 32 if k <= 128 else 16, 4, 2)
        return ChunkTile(32, pairs=narrow, walk=walk, walk_back=walk, pair_grad=narrow, key_grad=narrow)
    # On Hopper, 64 transposed values are what a group of four warps takes.
    return ChunkTile(
        chunk=32,
        pairs=narrow,
        walk=Block(max(k, 64), 64, 4, 3 if k <= 128 else 2),
        walk_back=Block(max(k, 64), 64, 4 if k <= 128 else 8, 2),
        pair_grad=narrow,
        key_grad=narrow,
    )


def _plain_tile(key: TileKey) -> ChunkTile:
    tile = chunk_tile(key)
    if key.dtype_bytes == 4:
        return tile
    return tile._replace(pairs=tile.pairs._replace(stages=2), key_grad=tile.key_grad._replace(stages=3))


def _channel_tile(key: TileKey) -> ChunkTile:
    tile = chunk_tile(key)
    if key.dtype_bytes == 4:
        return tile
    pairs = tile.pairs._replace(k=32) if key.key_dim > 64 else tile.pairs
    return tile._replace(pairs=pairs, key_grad=tile.key_grad._replace(warps=4))


#: By what decays: 0, nothing; 2, all channels alike; 3, each by itself. Chunks are as long.
CHUNK_TILES: dict[int, TileTable[ChunkTile]] = {
    0: TileTable(_plain_tile),
    2: TileTable(chunk_tile),
    3: TileTable(_channel_tile),
}
