"""Tile sizes of the generalized delta rule's kernels."""

from __future__ import annotations

from fla.ops.gated_delta_rule.tiles import RECURRENT_TILES as RECURRENT_TILES, ChunkTile, chunk_tile
from fla.utils._tiles import Block, TileKey, TileTable


def _chunk_tile(key: TileKey) -> ChunkTile:
    tile = chunk_tile(key)
    if key.dtype_bytes == 4:
        return tile
    # Four matrices of pairs fit in registers at half the chunk of the gated delta rule.
    narrow = Block(64, 64, 2, 1)
    return tile._replace(
        chunk=32,
        pairs=narrow,
        walk=tile.walk._replace(stages=2),
        walk_back=tile.walk_back._replace(stages=2),
        pair_grad=narrow,
        key_grad=Block(64, 64, 4, 1),
    )


CHUNK_TILES: TileTable[ChunkTile] = TileTable(_chunk_tile)
