"""The menu of fla.modules: what it lists, what type checkers are told, and what its names lead to."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest

from fla import modules


def test_type_checkers_see_the_menu_and_nothing_else() -> None:
    tree = ast.parse(Path(str(modules.__file__)).read_text())
    (block,) = (n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert {alias.name: node.module for node in imports for alias in node.names} == modules._MENU
    assert all(alias.asname == alias.name for node in imports for alias in node.names)
    assert dir(modules) == sorted(modules._MENU)


@pytest.mark.parametrize("name", modules._MENU)
def test_name_resolves(name: str) -> None:
    assert getattr(modules, name) is getattr(import_module(modules._MENU[name]), name)


def test_misspelt_name_is_corrected() -> None:
    with pytest.raises(AttributeError, match="no attribute 'RMSnorm'; did you mean .*RMSNorm"):
        _ = modules.RMSnorm  # type: ignore[attr-defined]
