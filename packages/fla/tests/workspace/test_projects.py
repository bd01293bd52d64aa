"""The five projects and what stands beside them agree."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[4]
PROJECTS: dict[str, dict[str, Any]] = {
    path.parent.name: tomllib.loads(path.read_text()) for path in sorted(ROOT.glob("packages/*/pyproject.toml"))
}
# Imports go one way: each package may need those before it.
ORDER = ["fla-ops", "fla-modules", "fla-layers", "fla-models", "fla"]


def requirements(project: dict[str, Any]) -> list[Requirement]:
    extras = project["project"].get("optional-dependencies", {}).values()
    listed = [project["project"]["dependencies"], *extras, project["dependency-groups"]["test"]]
    return [Requirement(item) for items in listed for item in items]


def test_the_packages_are_those_of_the_design() -> None:
    assert sorted(PROJECTS) == sorted(ORDER)
    assert {name: project["project"]["name"] for name, project in PROJECTS.items()} == {name: name for name in ORDER}


@pytest.mark.parametrize("name", ORDER)
def test_imports_go_one_way(name: str) -> None:
    siblings = {requirement.name for requirement in requirements(PROJECTS[name])} & set(ORDER) - {name}
    assert siblings <= set(ORDER[: ORDER.index(name)])


@pytest.mark.parametrize("name", ORDER)
def test_everything_has_a_version_to_test_with(name: str) -> None:
    pinned = {
        Requirement(line).name
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }
    wanted = {requirement.name for requirement in requirements(PROJECTS[name])} - set(ORDER)
    wanted |= {Requirement(item).name for item in PROJECTS[name]["build-system"]["requires"]}
    assert wanted <= pinned


@pytest.mark.parametrize("name", ORDER)
def test_what_the_projects_have_in_common_is_the_same(name: str) -> None:
    common = ("requires-python", "license", "authors", "classifiers")
    assert [PROJECTS[name]["project"][key] for key in common] == [PROJECTS["fla"]["project"][key] for key in common]
    assert (ROOT / "packages" / name / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_a_developer_gets_all_of_it() -> None:
    lines = (ROOT / "requirements-dev.txt").read_text().splitlines()
    editable = [re.sub(r"\[.*", "", line.removeprefix("-e packages/")) for line in lines if line.startswith("-e ")]
    assert editable == ORDER
    tools = {Requirement(line).name for line in lines if line and not line.startswith(("-", "#"))}
    tests = {Requirement(item).name for project in PROJECTS.values() for item in project["dependency-groups"]["test"]}
    assert tests - set(ORDER) <= tools
