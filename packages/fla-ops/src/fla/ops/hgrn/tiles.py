"""Tile sizes of the elementwise scan, and how time is split among programs."""

from __future__ import annotations

from typing import NamedTuple

from fla.utils._tiles import power_of_two

#: Programs that keep a large GPU busy.
_ENOUGH = 512
#: No program walks fewer steps than this, or it would do nothing but start.
_SHORTEST = 256


class ScanTile(NamedTuple):
    """Steps and channels that a program holds at a time, and its warps."""

    steps: int
    channels: int
    warps: int


def scan_tile(total: int, channels: int) -> ScanTile:
    """The tile for sequences of ``total`` steps of so many channels."""
    if total == 1:
        return ScanTile(1, min(power_of_two(channels), 512), 4)
    return ScanTile(32, min(power_of_two(channels), 128), 4)


def segment_steps(total: int, sequences: int, blocks: int) -> int:
    """Steps of a segment of time: all of them where there are programs enough without splitting it."""
    if sequences * blocks >= _ENOUGH or total <= 2 * _SHORTEST:
        return total
    segments = -(-_ENOUGH // blocks)
    return max(_SHORTEST, power_of_two(-(-total // segments)))
