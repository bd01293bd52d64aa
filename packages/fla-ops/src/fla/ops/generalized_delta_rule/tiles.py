"""Tile sizes of the generalized delta rule's kernels: those of the gated delta rule."""

from __future__ import annotations

from fla.ops.gated_delta_rule.tiles import RECURRENT_TILES as RECURRENT_TILES, ChunkTile, chunk_tile
from fla.utils._tiles import TileTable

CHUNK_TILES: TileTable[ChunkTile] = TileTable(chunk_tile)
