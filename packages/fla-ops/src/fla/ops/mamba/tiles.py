"""How the selective scan is cut: into spans that both backends store a state for, and the tiles of the kernels."""

from __future__ import annotations

from typing import NamedTuple

from fla.utils._tiles import TileKey, TileTable, power_of_two

#: Steps from one stored state to the next, by backend; the backward pass computes the states between them again.
SPANS = {"torch": 16, "triton": 64}
#: States of a channel that one thread holds: sums over more of them cross warps.
STATES_PER_THREAD = 16
#: More threads would have too few registers each.
MOST_WARPS = 8


class ScanTile(NamedTuple):
    """Steps whose loads are under way at a time, and channels of a program, by how many warps."""

    steps: int
    channels: int
    warps: int


def _tile(key: TileKey, steps: int, widest: int) -> ScanTile:
    states = power_of_two(key.key_dim, STATES_PER_THREAD)
    most = MOST_WARPS * 32 * STATES_PER_THREAD // states
    channels = min(widest, most, power_of_two(key.value_dim, 32))
    return ScanTile(steps, channels, channels * states // (32 * STATES_PER_THREAD))


def _output_tile(key: TileKey) -> ScanTile:
    # A warp on its own never waits for others.
    return _tile(key, 8, 32)


def _gradient_tile(key: TileKey) -> ScanTile:
    # Of every step the states before and after and the decays are held. The gradients of B and C are summed within a
    # program, and stored by each.
    return _tile(key, 2 if key.key_dim <= 128 else 1, 128)


#: By states of a channel and channels of a group.
OUTPUT_TILES: TileTable[ScanTile] = TileTable(_output_tile)
GRADIENT_TILES: TileTable[ScanTile] = TileTable(_gradient_tile)
