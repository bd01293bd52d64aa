"""Tile sizes of the kernels of the running log-sum-exp."""

from __future__ import annotations

from fla.ops._engines.scan.tiles import ScanTile
from fla.utils.tiles import TileKey, TileTable, power_of_two

#: Programs from which on time is not cut: a logarithm and several exponentials an element keep a warp busy longer than
#: a plain scan does.
ENOUGH_PROGRAMS = 512


def _rule(steps: int, stages: int) -> TileTable[ScanTile]:
    def tile(key: TileKey) -> ScanTile:
        return ScanTile(steps=steps, channels=min(64, power_of_two(key.key_dim, 32)), warps=1, stages=stages)

    return TileTable(tile)


WRITES_TILES = _rule(steps=16, stages=3)
GRADIENT_TILES = _rule(steps=16, stages=2)
