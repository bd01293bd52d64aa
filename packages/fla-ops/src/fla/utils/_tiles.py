"""Tile choice: a table in code, looked up by shape, with a rule where the table is silent. No tuning at run time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

TileT = TypeVar("TileT")


class TileKey(NamedTuple):
    """What a tile is chosen by."""

    key_dim: int
    value_dim: int
    dtype_bytes: int
    arch: int
    """Compute capability as ``10 * major + minor``, 0 where that has no meaning."""


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

    def shipped(self, keys: Iterator[TileKey]) -> dict[TileKey, TileT]:
        """Every entry of the table, and the rule's answer for each of ``keys``: what tests must cover."""
        return {**{key: self.rule(key) for key in keys}, **self.entries}
