"""The menu: what it lists, what type checkers are told, and what its names lead to."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

import fla


def _imports_for_type_checkers() -> list[ast.ImportFrom]:
    tree = ast.parse(Path(fla.__file__).read_text())
    (block,) = (
        node
        for node in tree.body
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    )
    assert all(isinstance(node, ast.ImportFrom) for node in block.body)
    return [node for node in block.body if isinstance(node, ast.ImportFrom)]


def test_type_checkers_see_the_menu_and_nothing_else() -> None:
    imports = _imports_for_type_checkers()
    assert not [alias.name for node in imports for alias in node.names if alias.asname != alias.name]
    parts = [alias.name for node in imports if node.module == "fla" for alias in node.names]
    names = [(alias.name, node.module) for node in imports if node.module != "fla" for alias in node.names]
    assert sorted(parts) == sorted(fla._PARTS)
    assert sorted(names) == sorted(fla._MENU.items())


def test_dir_lists_the_menu() -> None:
    assert dir(fla) == sorted([*fla._MENU, *fla._PARTS, "__version__"])


@pytest.mark.parametrize("name", fla._MENU)
def test_name_resolves(name: str) -> None:
    value = getattr(fla, name)
    assert value is getattr(import_module(fla._MENU[name]), name)
    assert value.__name__ == name


@pytest.mark.parametrize("part", fla._PARTS)
def test_part_resolves(part: str) -> None:
    assert getattr(fla, part) is import_module(f"fla.{part}")


@pytest.mark.parametrize("home", sorted(set(fla._MENU.values())))
def test_what_the_menu_takes_is_public_at_home(home: str) -> None:
    taken = {name for name, module in fla._MENU.items() if module == home}
    assert taken <= set(import_module(home).__all__)


@pytest.mark.parametrize(
    ("misspelt", "meant"), [("chunk_glaa", "chunk_gla"), ("GLAForCausalLm", "GLAForCausalLM"), ("layer", "layers")]
)
def test_misspelt_name_is_corrected(misspelt: str, meant: str) -> None:
    with pytest.raises(
        AttributeError, match=rf"module 'fla' has no attribute '{misspelt}'; did you mean .*\b{meant}\b"
    ):
        getattr(fla, misspelt)


def test_unlike_name_points_at_the_list() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'qzx'; dir\(fla\) lists what it has"):
        _ = fla.qzx
