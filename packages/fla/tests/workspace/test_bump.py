"""tools/bump.py on a copy of the projects."""

import importlib.util
import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(scope="module")
def bump() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bump", ROOT / "tools" / "bump.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    for path in [*ROOT.glob("packages/*/pyproject.toml"), ROOT / "packages/fla/src/fla/__init__.py"]:
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return tmp_path


def text(workspace: Path) -> dict[str, str]:
    return {str(path.relative_to(workspace)): path.read_text() for path in workspace.rglob("*.*") if path.is_file()}


def test_the_repository_agrees(bump: ModuleType) -> None:
    assert bump.disagreements(ROOT) == []


def test_only_versions_change_and_all_of_them(bump: ModuleType, workspace: Path) -> None:
    before = text(workspace)
    (old,) = set(re.findall(r'^__version__ = "(.*)"', before["packages/fla/src/fla/__init__.py"], re.MULTILINE))
    bump.main(["7.8.9rc1"], workspace)
    assert text(workspace) == {path: content.replace(old, "7.8.9rc1") for path, content in before.items()}
    bump.main(["--check"], workspace)


@pytest.mark.parametrize(
    ("path", "found", "spoilt"),
    [
        ("packages/fla-ops/pyproject.toml", r'^version = ".*"', 'version = "0.0.1"'),
        ("packages/fla-ops/pyproject.toml", r'^version = ".*"', ""),
        ("packages/fla/pyproject.toml", r'"fla-models\[train\]==[^"]*"', '"fla-models[train]"'),
        ("packages/fla-layers/pyproject.toml", r'"fla-ops==[^"]*"', '"fla-ops>=1.0"'),
        ("packages/fla-layers/pyproject.toml", r'"fla-ops==[^"]*"', "\"fla-ops==0.0.1; python_version < '3.12'\""),
        ("packages/fla/src/fla/__init__.py", r'^__version__ = ".*"', '__version__ = "0.0.1"'),
    ],
)
def test_check_finds_each_kind_of_disagreement(
    bump: ModuleType, workspace: Path, path: str, found: str, spoilt: str
) -> None:
    file = workspace / path
    content, count = re.subn(found, spoilt, file.read_text(), count=1, flags=re.MULTILINE)
    assert count == 1
    file.write_text(content)
    with pytest.raises(SystemExit, match=path):
        bump.main(["--check"], workspace)


def test_unpinned_sibling_is_pinned_and_markers_are_kept(bump: ModuleType, workspace: Path) -> None:
    file = workspace / "packages/fla-models/pyproject.toml"
    file.write_text(
        re.sub(r'"fla-ops==[^"]*"', "\"fla-ops >= 1.0; sys_platform == 'linux'\"", file.read_text(), count=1)
    )
    bump.main(["2.0.0"], workspace)
    assert "\"fla-ops==2.0.0; sys_platform == 'linux'\"" in file.read_text()


@pytest.mark.parametrize("version", ["1.x", "v1.0.0", "1.0", "1.0.0-rc1"])
def test_bad_version_changes_nothing(bump: ModuleType, workspace: Path, version: str) -> None:
    before = text(workspace)
    with pytest.raises(SystemExit, match="2"):
        bump.main([version], workspace)
    assert text(workspace) == before
