"""Tile sizes of the scan kernels."""

from __future__ import annotations

from typing import NamedTuple

from fla.utils.tiles import TileKey, TileTable, power_of_two

#: Programs from which on cutting time into segments, which reads inputs twice, does not pay.
ENOUGH_PROGRAMS = 128
#: Programs to aim for where time is cut.
WANTED_PROGRAMS = 1024
#: A program reads the sums of all segments before its own, so they must be few.
MOST_SEGMENTS = 64
#: Shorter segments are not worth another launch.
LEAST_SEGMENT = 256


class ScanTile(NamedTuple):
    """Steps and channels that a program loads at a time, by how many warps, staged how deep."""

    steps: int
    channels: int
    warps: int
    stages: int

    @property
    def channels_per_thread(self) -> int:
        """Channels side by side in one thread, so that all its warps stand side by side and time never crosses them."""
        return max(1, self.channels // (32 * self.warps))

    def segment(self, total: int, programs: int, enough: int = ENOUGH_PROGRAMS) -> int:
        """Steps after which time is cut, a multiple of ``steps``; at least ``total`` where it is not cut.

        Args:
            total: steps of the longest sequence.
            programs: how many there are where time is not cut.
            enough: programs from which on it is not.
        """
        if programs >= enough:
            return -(-total // self.steps) * self.steps
        segments = min(MOST_SEGMENTS, -(-WANTED_PROGRAMS // programs))
        steps = max(-(-total // segments), min(total, LEAST_SEGMENT))
        return -(-steps // self.steps) * self.steps


def _scan_tile(key: TileKey) -> ScanTile:
    stages = 3 if key.dtype_bytes == 2 else 2
    return ScanTile(steps=32, channels=min(64, power_of_two(key.key_dim, 32)), warps=1, stages=stages)


SCAN_TILES: TileTable[ScanTile] = TileTable(_scan_tile)
