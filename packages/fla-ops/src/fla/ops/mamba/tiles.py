"""How the selective scan is cut: into spans that both backends store a state for, and the tiles of the kernels."""

from __future__ import annotations

from typing import NamedTuple

from fla.utils._tiles import TileKey, TileTable, power_of_two

#: Steps from one stored state to the next, by backend; the backward pass computes the states between them again.
SPANS = {"torch": 16, "triton": 64}
#: What a thread holds of the states of a tile: more would go through memory.
STATES_PER_THREAD = 64


class ScanTile(NamedTuple):
    """Steps whose loads are under way at a time, and channels of a program, by how many warps."""

    steps: int
    channels: int
    warps: int


def _tile(key: TileKey, widest: int) -> ScanTile:
    states = power_of_two(key.key_dim, 1)
    channels = min(widest, power_of_two(key.value_dim, 32))
    return ScanTile(max(1, min(4, STATES_PER_THREAD // states)), channels, channels // 32)


def _output_tile(key: TileKey) -> ScanTile:
    # A warp on its own never waits for others.
    return _tile(key, 32)


def _gradient_tile(key: TileKey) -> ScanTile:
    # The gradients of B and C are summed within a program, and stored by each.
    return _tile(key, 128)


#: By states of a channel and channels of a group.
OUTPUT_TILES: TileTable[ScanTile] = TileTable(_output_tile)
GRADIENT_TILES: TileTable[ScanTile] = TileTable(_gradient_tile)
