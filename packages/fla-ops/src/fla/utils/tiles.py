"""Tile choice: a table in code, looked up by shape, with a rule where the table is silent. No tuning at run time.

Shared by the five wheels; not public: it may change in any release.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from math import prod
from typing import Generic, NamedTuple, TypeVar

import torch

TileT = TypeVar("TileT")


class TileKey(NamedTuple):
    """What a tile is chosen by."""

    key_dim: int
    value_dim: int
    dtype_bytes: int
    arch: int
    """Compute capability as ``10 * major + minor``, 0 where that has no meaning."""


class Block(NamedTuple):
    """What one kernel works on at a time: channels of K and of V, by how many warps, loads staged how deep."""

    k: int
    v: int
    warps: int
    stages: int


#: The most programs of a launch, and of its second or third axis. What grows with the batch stands on the first.
MOST_PROGRAMS, MOST_HEADS = 2**31 - 1, 2**16 - 1

#: What CPU tensors are taken for: 0, or the architecture that a dry run compiles for.
_cpu_arch = 0


def pretend_arch(arch: int) -> None:
    """Choose tiles for CPU tensors as if they were on a GPU of compute capability ``arch``."""
    global _cpu_arch
    _cpu_arch = arch


def tile_key(keys: torch.Tensor, value_dim: int) -> TileKey:
    """The key for a call on ``keys`` ``[..., K]`` and values of ``value_dim`` channels."""
    arch = _arch(keys.device.index) if keys.is_cuda else _cpu_arch
    return TileKey(keys.shape[-1], value_dim, keys.element_size(), arch)


@cache
def _arch(index: int) -> int:
    major, minor = torch.cuda.get_device_capability(index)
    return 10 * major + minor


def launch_grid(*counts: int, heads: int = 1) -> tuple[int, int]:
    """A program of each combination of the counts on the first axis, the first count fastest; heads on the second.

    Raises:
        ValueError: more heads or programs than a launch can have. Triton skips a launch of more without a word.
    """
    programs = prod(counts) * heads
    if programs > MOST_PROGRAMS or heads > MOST_HEADS:
        raise ValueError(
            f"launch grid: expected at most {MOST_PROGRAMS} programs and {MOST_HEADS} heads, "
            f"got {' * '.join(map(str, (*counts, heads)))} = {programs} and {heads}; split the batch"
        )
    return prod(counts), heads


def power_of_two(size: int, least: int = 16) -> int:
    """The smallest power of two that is at least ``size`` and ``least``."""
    return max(least, 1 << (size - 1).bit_length())


@dataclass
class TileTable(Generic[TileT]):
    """The tiles of one kernel: measured entries, and a rule for everything else."""

    rule: Callable[[TileKey], TileT]
    entries: Mapping[TileKey, TileT] = field(default_factory=dict)
    _chosen: dict[TileKey, TileT] = field(default_factory=dict, init=False, repr=False)

    def choose(self, key: TileKey) -> TileT:
        """The entry for ``key``, else what the rule says; computed once per key."""
        tile = self._chosen.get(key)
        if tile is None:
            tile = self.entries[key] if key in self.entries else self.rule(key)
            self._chosen[key] = tile
        return tile
