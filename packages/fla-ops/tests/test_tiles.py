"""What every rule for tiles must hold to, whatever the family and the device."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from itertools import product
from pkgutil import walk_packages
from typing import Any

import pytest

import fla.ops
from fla.ops._engines.selective_scan.tiles import GRADIENT_TILES, MOST_WARPS, OUTPUT_TILES, SPANS, WARP
from fla.utils.tiles import Block, TileKey, TileTable

DIMS = (1, 16, 40, 64, 100, 128, 200, 256)
KEYS = [TileKey(k, v, *rest) for k, v, *rest in product(DIMS, DIMS, (2, 4), (0, 80, 89, 90, 100, 120))]


def _tables() -> Iterator[tuple[str, TileTable[Any]]]:
    modules = [module.name for module in walk_packages(fla.ops.__path__, "fla.ops.") if module.name.endswith("tiles")]
    for module in modules:
        for name, value in vars(import_module(module)).items():
            tables = value if isinstance(value, dict) else {"": value}
            for key, table in tables.items():
                if isinstance(table, TileTable):
                    room = module.removeprefix("fla.ops.").removesuffix(".tiles").split(".")[-1]
                    yield " ".join(filter(None, (f"{room}.{name}", str(key)))), table


TABLES = dict(_tables())
CHUNKS = {name: table for name, table in TABLES.items() if "CHUNK_TILES" in name}
BLOCKS = {**CHUNKS, **{name: table for name, table in TABLES.items() if "RECURRENT_TILES" in name}}
SCANS = {name: table for name, table in TABLES.items() if name not in BLOCKS}


def _tables_of(tables: dict[str, TileTable[Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("table", [pytest.param(table, id=name) for name, table in tables.items()])


def _blocks(tile: Any) -> list[Block]:
    return [tile] if isinstance(tile, Block) else [part for part in tile if isinstance(part, Block)]


def _power_of_two(size: int) -> bool:
    return size > 0 and size & (size - 1) == 0


@_tables_of(BLOCKS)
def test_blocks_are_powers_of_two_that_matrix_units_take(table: TileTable[Any]) -> None:
    for key in KEYS:
        blocks = _blocks(table.choose(key))
        assert blocks
        for k, v, warps, stages in blocks:
            assert all(map(_power_of_two, (k, v, warps)))
            assert min(k, v) >= 16
            assert 1 <= warps <= 8
            assert 1 <= stages <= 4


@_tables_of(CHUNKS)
def test_chunks_are_powers_of_two(table: TileTable[Any]) -> None:
    for key in KEYS:
        chunk = table.choose(key).chunk
        assert _power_of_two(chunk)
        assert 16 <= chunk <= 64


@_tables_of(CHUNKS)
def test_half_precision_blocks_of_a_warp_group_are_wide(table: TileTable[Any]) -> None:
    for key in KEYS:
        if key.dtype_bytes == 2 and 90 <= key.arch < 100:
            assert all(min(b.k, b.v) >= 64 for b in _blocks(table.choose(key)) if b.warps >= 4)


@_tables_of({name: table for name, table in BLOCKS.items() if name.endswith("RECURRENT_TILES")})
def test_recurrences_hold_all_of_a_key(table: TileTable[Block]) -> None:
    assert all(key.key_dim <= table.choose(key).k < 2 * max(key.key_dim, 16) for key in KEYS)


@_tables_of({name: table for name, table in CHUNKS.items() if hasattr(table.choose(KEYS[0]), "walk")})
def test_walks_hold_all_of_a_key(table: TileTable[Any]) -> None:
    for key in KEYS:
        walk = table.choose(key).walk
        assert walk is None or walk.k >= key.key_dim


@_tables_of(SCANS)
def test_scans_fill_warps(table: TileTable[Any]) -> None:
    for key in KEYS:
        tile = table.choose(key)
        assert tile.steps >= 1
        assert _power_of_two(tile.channels)
        assert _power_of_two(tile.warps)
        assert tile.warps <= MOST_WARPS


@pytest.mark.parametrize("table", [OUTPUT_TILES, GRADIENT_TILES], ids=["output", "gradient"])
def test_the_selective_scan_stores_states_between_tiles(table: TileTable[Any]) -> None:
    for key in KEYS:
        tile = table.choose(key)
        assert SPANS["triton"] % tile.steps == 0
        assert tile.channels <= WARP


def test_every_chunked_family_is_looked_at() -> None:
    families = {name.split(".")[0] for name in CHUNKS}
    assert families >= {"second_order", "channel_decay", "scalar_decay", "delta", "low_rank"}
