"""How the selective scan is cut: into spans that both backends store a state for, and the tiles of the kernels."""

from __future__ import annotations

from typing import NamedTuple

from fla.utils.tiles import TileKey, TileTable, power_of_two

#: Steps from one stored state to the next, by backend; the backward pass computes the states between them again.
SPANS = {"torch": 16, "triton": 24}
#: Lanes of a warp: channels whose gradients of B and C are summed before they are stored.
WARP = 32
#: States of a channel that a lane can hold.
STATES_PER_LANE = 32
#: States that one load brings.
STATES_PER_LOAD = 4
#: More threads would have too few registers each.
MOST_WARPS = 8


class ScanTile(NamedTuple):
    """Steps that are taken at a time, and channels of a program, by how many warps."""

    steps: int
    channels: int
    warps: int


def cut_states(states: int) -> tuple[int, int]:
    """Pieces that the states of a channel are held in, and states of a piece."""
    held = power_of_two(states, 1)
    # What lanes cannot hold the compiler is to lay over them, as it likes.
    width = held if held > STATES_PER_LANE else min(held, STATES_PER_LOAD)
    return held // width, width


def whole_words(states: int, element_size: int) -> bool:
    """Whether a row of B or C is words of two elements."""
    return element_size == 2 and states % 2 == 0


def _tile(key: TileKey, steps: int) -> ScanTile:
    # A warp on its own never waits for others.
    if key.key_dim <= STATES_PER_LANE:
        return ScanTile(steps, WARP, 1)
    states = power_of_two(key.key_dim)
    channels = min(WARP, MOST_WARPS * WARP * STATES_PER_LANE // (2 * states))
    return ScanTile(steps, channels, 2 * channels * states // (WARP * STATES_PER_LANE))


def _output_tile(key: TileKey) -> ScanTile:
    if key.key_dim > STATES_PER_LANE:
        return _tile(key, 2)
    # B and C of the next steps are held, and take half the registers in words.
    room = 128 if whole_words(key.key_dim, key.dtype_bytes) else 32
    return _tile(key, min(8, room // power_of_two(key.key_dim)))


def _gradient_tile(key: TileKey) -> ScanTile:
    # Of every step the states before and after and the decays are held, and what the next tile reads: 2 steps of 16
    # states fill the registers.
    return _tile(key, 1 if key.key_dim > STATES_PER_LANE // 2 else 2)


#: By states of a channel and channels of a group.
OUTPUT_TILES: TileTable[ScanTile] = TileTable(_output_tile)
GRADIENT_TILES: TileTable[ScanTile] = TileTable(_gradient_tile)
