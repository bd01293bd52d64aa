"""Ops are tested where their tests say: most hold the torch backend to the truth on the CPU, others take ``device``."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the device of every test of this folder to the test."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.own_device)
