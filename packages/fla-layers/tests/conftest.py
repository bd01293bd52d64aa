"""Conditions that all tests of this folder run under."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def quantised_values_are_in_float64(request: pytest.FixtureRequest) -> Iterator[None]:
    """In float32 rounding carries a value over a step of its quantisation now and then."""
    if "bitattn" not in request.node.name:
        yield
        return
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
