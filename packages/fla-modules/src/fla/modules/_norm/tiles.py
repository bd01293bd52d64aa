"""How many rows the norm kernels take at a time, by how many warps."""

from __future__ import annotations

from typing import NamedTuple

from fla.utils.tiles import TileKey, TileTable, power_of_two


class NormTile(NamedTuple):
    """A block of ``rows`` whole rows of ``channels``; programs on each multiprocessor, for the backward pass."""

    rows: int
    channels: int
    warps: int
    programs: int = 1
    stages: int = 1


def _rows(key: TileKey, elements: int) -> tuple[int, int]:
    """As many rows as make a block of so many elements, and the channels of one."""
    channels = power_of_two(key.key_dim, 1)
    return max(1, elements // channels), channels


def _forward_tile(key: TileKey) -> NormTile:
    rows, channels = _rows(key, 2048)
    return NormTile(rows, channels, min(16, max(1, rows * channels // 512)))


def _backward_tile(key: TileKey) -> NormTile:
    """Measured on an H200: blocks of 4096 elements, or 2048 with a gate, and up to 64 kB of loads in flight.

    Narrow rows are not staged, because their pipeline costs more than it hides; eight warps instead hide it.
    """
    gated = key.value_dim > 0
    rows, channels = _rows(key, 2048 if gated else 4096)
    elements = rows * channels
    programs = max(1, 16384 // elements)
    if channels <= 256:
        return NormTile(rows, channels, 8, programs=4)
    stages = max(1, min(3 if gated else 2, 1 + 16384 // (elements * key.dtype_bytes)))
    return NormTile(rows, channels, elements // (512 if gated else 1024), min(4, programs), stages)


#: Keyed by the channels of x (K) and of the gate (V, 0 without one). Every combination of arguments stays within the
#: registers up to 4096 channels, x and weight (and gate) up to 8192.
FORWARD_TILES: TileTable[NormTile] = TileTable(_forward_tile)
BACKWARD_TILES: TileTable[NormTile] = TileTable(_backward_tile)
