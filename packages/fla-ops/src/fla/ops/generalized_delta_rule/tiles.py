"""Tile sizes of the generalized delta rule's kernels."""

from __future__ import annotations

from fla.ops.gated_delta_rule.tiles import RECURRENT_TILES as RECURRENT_TILES, ChunkTile, chunk_tile
from fla.utils._tiles import TileKey, TileTable


def _chunk_tile(key: TileKey) -> ChunkTile:
    """Those of the gated delta rule, but less for wide keys: the walk has twice the operands."""
    tile = chunk_tile(key)
    return tile._replace(walk=tile.walk._replace(stages=1)) if tile.walk.k >= 128 else tile


CHUNK_TILES: TileTable[ChunkTile] = TileTable(_chunk_tile)
