"""The convolution's backward pass where programs take several blocks each, and other tiles than the default."""

from __future__ import annotations

import pytest
import torch

from fla.modules.convolution import launch
from fla.modules.convolution.spec import SPEC
from fla.utils.spec import Case
from fla.utils.testing.conformance import check_case
from fla.utils.tiles import TileTable

CASES = [case for case in SPEC.cases if "longer than a block" in case.name]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_programs_take_several_blocks(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "BACKWARD_PROGRAMS", 2)
    check_case(case, "triton", "cpu", torch.float32, SPEC.truth)


@pytest.mark.parametrize("tile", [launch.ConvTile(4, 32, 1, 1), launch.ConvTile(16, 32, 16, 1)], ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_any_tile_is_right(case: Case, tile: launch.ConvTile, monkeypatch: pytest.MonkeyPatch) -> None:
    for table in ("FORWARD_TILES", "BACKWARD_TILES"):
        monkeypatch.setattr(launch, table, TileTable(lambda key: tile))
    check_case(case, "triton", "cpu", torch.float32, SPEC.truth)
