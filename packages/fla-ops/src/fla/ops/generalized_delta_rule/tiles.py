"""Tile sizes of the generalized delta rule's kernels."""

from __future__ import annotations

from fla.ops.gated_delta_rule.tiles import RECURRENT_TILES as RECURRENT_TILES, ChunkTile, chunk_tile
from fla.utils._tiles import TileKey, TileTable


def _chunk_tile(key: TileKey) -> ChunkTile:
    """Those of the gated delta rule, but less for wide keys: the walk has twice the operands."""
    tile = chunk_tile(key)
    walk = tile.walk
    if walk.k < 128:
        return tile
    return tile._replace(walk=walk._replace(stages=1, v=max(16, walk.v // 2) if 0 < key.arch < 90 else walk.v))


CHUNK_TILES: TileTable[ChunkTile] = TileTable(_chunk_tile)
