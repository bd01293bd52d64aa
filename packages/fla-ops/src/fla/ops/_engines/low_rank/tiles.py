"""Tile sizes of the generalized delta rule's kernels: but for one those of the gated delta rule."""

from __future__ import annotations

from fla.ops._engines.delta.tiles import ChunkTile, chunk_tile
from fla.utils.tiles import TileKey, TileTable


def _chunk_tile(key: TileKey) -> ChunkTile:
    tile = chunk_tile(key)
    if key.dtype_bytes == 4:
        walk = tile.walk._replace(v=16)
        return tile._replace(walk=walk, walk_back=walk)
    return tile._replace(walk=tile.walk._replace(stages=2), key_grad=tile.key_grad._replace(warps=4))


CHUNK_TILES: TileTable[ChunkTile] = TileTable(_chunk_tile)
