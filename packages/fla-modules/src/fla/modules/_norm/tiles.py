"""How many rows the norm kernels take at a time, by how many warps."""

from __future__ import annotations

from typing import NamedTuple

from fla.utils._tiles import TileKey, TileTable, power_of_two


class NormTile(NamedTuple):
    """A block of ``rows`` whole rows of ``channels``; programs on each multiprocessor, for the backward pass."""

    rows: int
    channels: int
    warps: int
    programs: int = 1
    stages: int = 1


def _tile(key: TileKey, elements: int, programs: int) -> NormTile:
    channels = power_of_two(key.key_dim, 1)
    rows = max(1, elements // channels)
    warps = min(16, max(1, rows * channels // 512))
    return NormTile(rows, channels, warps, programs)


#: Keyed by the channels of x (K) and of the gate (V, 0 without one). Every combination of arguments stays within the
#: registers up to 4096 channels, x and weight (and gate) up to 8192.
FORWARD_TILES: TileTable[NormTile] = TileTable(lambda key: _tile(key, 2048, 1))
BACKWARD_TILES: TileTable[NormTile] = TileTable(lambda key: _tile(key, 2048, 4))
