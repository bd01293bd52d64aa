"""The menu of fla.modules: what it lists, and what its names lead to."""

from __future__ import annotations

from importlib import import_module

import pytest

from fla import modules
from fla.utils.menu import read_menu

MENU = read_menu("fla.modules")


def test_dir_lists_the_menu() -> None:
    assert dir(modules) == sorted(MENU) == sorted(modules.__all__)


@pytest.mark.parametrize("name", MENU)
def test_name_resolves(name: str) -> None:
    assert getattr(modules, name) is getattr(import_module(MENU[name]), name)


def test_misspelt_name_is_corrected() -> None:
    with pytest.raises(AttributeError, match="no attribute 'RMSnorm'; did you mean .*RMSNorm"):
        _ = modules.RMSnorm  # type: ignore[attr-defined]
