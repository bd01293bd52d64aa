"""The menu: what it lists, and what its names lead to."""

from importlib import import_module

import pytest

import fla
from fla.utils.menu import read_menu

#: Public name -> the module that defines it, without the parts themselves.
MENU = {name: home for name, home in read_menu("fla").items() if home != "fla"}
PARTS = ("ops", "modules", "layers", "models", "utils")


def test_dir_lists_the_menu() -> None:
    assert dir(fla) == sorted([*MENU, *PARTS, "__version__"]) == sorted(fla.__all__)


@pytest.mark.parametrize("name", MENU)
def test_name_resolves(name: str) -> None:
    value = getattr(fla, name)
    assert value is getattr(import_module(MENU[name]), name)
    assert value.__name__ == name


@pytest.mark.parametrize("part", PARTS)
def test_part_resolves(part: str) -> None:
    assert getattr(fla, part) is import_module(f"fla.{part}")


@pytest.mark.parametrize("home", sorted(set(MENU.values())))
def test_what_the_menu_takes_is_public_at_home(home: str) -> None:
    taken = {name for name, module in MENU.items() if module == home}
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
