"""Tile sizes of the chunked kernels of linear attention with scalar decay."""

from __future__ import annotations

from typing import NamedTuple

from fla.utils.tiles import Block, TileKey, TileTable, power_of_two


class ChunkTile(NamedTuple):
    """The chunk length, a power of two, and the block of each kernel."""

    chunk: int
    state: Block
    output: Block
    walk: Block | None
    """None where states are too large for registers."""
    key_grad: Block


#: With this many programs, walks over time that keep the state fill a GPU.
WALK_PROGRAMS = 256
#: In fewer steps there is little to do at the same time.
WALK_STEPS = 128
#: Value heads that one program sums gradients of shared keys over, at most.
SHARED_HEADS = 16


def _chunk_tile(key: TileKey) -> ChunkTile:
    if key.dtype_bytes == 4:
        wide = Block(32, 32, 4, 1)
        walk = Block(power_of_two(key.key_dim), 32, 4, 1) if key.key_dim <= 64 else None
        return ChunkTile(32, state=wide, output=wide, walk=walk, key_grad=wide._replace(k=16))
    k, v = power_of_two(key.key_dim, 64), 128 if key.value_dim > 64 else 64
    walk = Block(k, 64, 4, 2) if k <= 128 else None
    if 0 < key.arch < 90:
        block = Block(64, 64, 4, 2)
        return ChunkTile(64, state=block, output=block, walk=walk if k == 64 else None, key_grad=Block(32, 32, 4, 2))
    return ChunkTile(
        chunk=64,
        state=Block(64, v, 4, 3) if v > 64 or k == 64 else Block(128, v, 4, 2),
        output=Block(64, v, 4, 2),
        walk=walk,
        key_grad=Block(64, 64, 4, 1) if v > 64 or k == 64 else Block(128, v, 8, 3),
    )


#: On Hopper and later half-precision blocks are never narrower than 64: see ``fla/ops/gla/tiles.py``.
CHUNK_TILES: TileTable[ChunkTile] = TileTable(_chunk_tile)


def shared_heads(heads: int, value_heads: int) -> int:
    """How many of the value heads that share a key head one program takes: a divisor of their number."""
    group = value_heads // heads
    return max(n for n in range(1, min(group, SHARED_HEADS) + 1) if group % n == 0)
