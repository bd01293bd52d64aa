"""What the doctor concludes from installed distributions: real metadata on disk, in a folder of its own."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import pytest

from fla.utils.environment import (
    KNOWN_BAD,
    Environment,
    Finding,
    ForeignOwner,
    damaged_files,
    foreign_owners,
    installed,
    known_bad,
    release,
    satisfies,
    survey,
)

OPS_REQUIRES = ("torch>=2.7", "einops>=0.7", "triton>=3.2; (sys_platform == 'linux') and extra == 'triton'")
MODELS_REQUIRES = ("fla-ops==1.0.0", "torch>=2.7", "transformers<6,>=5.6.2", "pandas>=2.0; extra == 'bench'")


class Site:
    """A folder to install make-believe distributions into."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(
        self,
        name: str,
        version: str = "1.0.0",
        requires: Sequence[str] = (),
        files: Mapping[str, str] | None = None,
        python: str = ">=3.10",
    ) -> None:
        info = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Python: {python}"]
        lines += [f"Requires-Dist: {requirement}" for requirement in requires]
        (info / "METADATA").write_text("\n".join(lines) + "\n")
        record = [f"{info.name}/RECORD,,"]
        for file, text in (files or {}).items():
            path = self.folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            digest = urlsafe_b64encode(sha256(text.encode()).digest()).rstrip(b"=").decode()
            record.append(f"{file},sha256={digest},{len(text)}")
        (info / "RECORD").write_text("\n".join(record) + "\n")

    def add_healthy(self) -> None:
        self.add("fla-ops", requires=OPS_REQUIRES, files={"fla/ops/__init__.py": "ops", "fla/utils/py.typed": ""})
        self.add("torch", "2.13.0+cpu")
        self.add("einops", "0.8.2")

    def survey(self) -> Environment:
        return survey(installed([str(self.folder)]))

    def findings(self) -> list[str]:
        return [finding.what for finding in self.survey().findings]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.mark.parametrize(
    ("version", "numbers"),
    [
        ("2.13.0+cpu", (2, 13)),
        ("3.7.1", (3, 7, 1)),
        ("2.7.0a0+git12ab", (2, 7)),
        ("5.23.0.dev0", (5, 23)),
        ("3.10", (3, 10)),
        ("0.0.0", (0,)),
        ("unknown", ()),
    ],
)
def test_release(version: str, numbers: tuple[int, ...]) -> None:
    assert release(version) == numbers


@pytest.mark.parametrize(
    ("version", "wanted", "met"),
    [
        ("5.17.0", "<6,>=5.6.2", True),
        ("5.6.1", "<6,>=5.6.2", False),
        ("6.0.0", "<6,>=5.6.2", False),
        ("3.7.0", ">=3.4,<3.7.1", True),
        ("3.7.1", ">=3.4,<3.7.1", False),
        ("3.10.0", ">=3.9", True),
        ("1.0.0.dev0", "==1.0.0.dev0", True),
        ("1.0.0", "==1.0.0.dev0", False),
        ("1.0.0", "!=1.0.0", False),
        ("2.0", ">2.0.0", False),
        ("2.0", "<=2.0.0", True),
        ("1", "", True),
    ],
)
def test_satisfies(version: str, wanted: str, met: bool) -> None:
    assert satisfies(version, wanted) is met


def test_satisfies_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match=r"wanted: expected conditions with .*, got '~=1.0'"):
        satisfies("1.0", "~=1.0")


def test_a_healthy_installation(site: Site) -> None:
    site.add_healthy()
    found = site.survey()
    assert found.findings == found.foreign == ()
    assert found.versions.items() >= {"fla-ops": "1.0.0", "torch": "2.13.0+cpu", "einops": "0.8.2"}.items()
    wanted = {package.name: (package.version, package.wanted) for package in found.packages}
    assert wanted["torch"] == ("2.13.0+cpu", ">=2.7")
    assert wanted["triton"] == (None, ">=3.2")
    assert "transformers" not in wanted


def test_unsupported_and_missing_packages(site: Site) -> None:
    site.add("fla-ops", requires=OPS_REQUIRES, python=">=3.99")
    site.add("fla-models", requires=MODELS_REQUIRES)
    site.add("torch", "2.6.1")
    site.add("transformers", "6.1.0")
    site.add("pandas", "1.5")
    assert site.findings()[0].startswith("python 3.")
    assert site.findings()[1:] == [
        "torch 2.6.1 is not supported: >=2.7 is",
        "einops is not installed",
        "transformers 6.1.0 is not supported: <6,>=5.6.2 is",
        "pandas 1.5 is not supported: >=2.0 is",
    ]
    assert all(finding.broken for finding in site.survey().findings)
    assert "pip install 'transformers<6,>=5.6.2'" in [finding.todo for finding in site.survey().findings]


def test_triton_under_another_name(site: Site) -> None:
    site.add_healthy()
    site.add("pytorch-triton-rocm", "3.1.0")
    assert site.findings() == ["triton 3.1.0 is not supported: >=3.2 is"]


def test_parts_of_different_versions(site: Site) -> None:
    site.add_healthy()
    site.add("fla-modules", "1.1.0", requires=("fla-ops==1.1.0",))
    assert site.findings() == ["the parts are of different versions: fla-ops 1.0.0, fla-modules 1.1.0"]


def test_a_part_that_others_need_is_missing(site: Site) -> None:
    site.add("fla-models", requires=("fla-ops==1.0.0", "fla-layers==1.0.0"))
    site.add("torch", "2.13.0")
    assert site.findings() == [
        "fla-layers is not installed, and other parts need it",
        "fla-ops is not installed, and other parts need it",
    ]


def test_nothing_at_all(site: Site) -> None:
    assert site.findings()[1:] == ["torch is not installed"]


def test_imported_from_a_folder(site: Site) -> None:
    site.add("torch", "2.13.0")
    site.add("triton", "3.7.1")
    found = site.survey()
    assert found.versions.items() >= {"torch": "2.13.0", "triton": "3.7.1"}.items()
    (finding,) = found.findings
    assert finding.what.startswith("fla is not installed")
    assert not finding.broken


def test_a_foreign_owner_that_overwrote_files_of_ours(site: Site) -> None:
    site.add_healthy()
    site.add("fla-core", "0.6.0", files={"fla/ops/__init__.py": "theirs", "fla/modules/x.py": "theirs"})
    found = site.survey()
    assert found.foreign == (ForeignOwner("fla-core", "0.6.0", files=2, overlapping=1),)
    owner, damage = found.findings
    assert owner.what.startswith("fla-core 0.6.0 writes into the folder fla/ too")
    assert owner.todo.startswith("pip uninstall fla-core, then ")
    assert damage.what == "1 files of these wheels are gone or not what was installed: fla/ops/__init__.py"
    assert damage.todo == "after that, pip install --force-reinstall --no-deps fla-ops"


def test_any_distribution_with_files_in_the_folder_is_foreign(site: Site) -> None:
    site.add_healthy()
    site.add("Something.Else", "3", files={"fla/layers/extra.py": "", "other/fla/x.py": ""})
    site.add("bystander", files={"flax/__init__.py": "", "other/fla/y.py": ""})
    assert list(foreign_owners(installed([str(site.folder)]))) == [ForeignOwner("something-else", "3", 1, 0)]


def test_a_known_foreign_owner_without_a_list_of_files(site: Site) -> None:
    site.add_healthy()
    site.add("flash_linear_attention", "0.5.0")
    assert site.survey().foreign == (ForeignOwner("flash-linear-attention", "0.5.0", 0, 0),)


def test_files_that_went_with_a_foreign_owner(site: Site) -> None:
    site.add_healthy()
    (site.folder / "fla/utils/py.typed").unlink()
    assert damaged_files(installed([str(site.folder)])) == ["fla/utils/py.typed"]
    assert site.survey().findings == (
        Finding(
            "1 files of these wheels are gone or not what was installed: fla/utils/py.typed",
            "pip install --force-reinstall --no-deps fla-ops",
        ),
    )


def test_the_first_of_two_installations_counts(tmp_path: Path) -> None:
    for folder, version in (("a", "1.0.0"), ("b", "2.0.0")):
        (tmp_path / folder).mkdir()
        Site(tmp_path / folder).add("fla_ops", version)
    assert installed([str(tmp_path / "a"), str(tmp_path / "b")])["fla-ops"].version == "1.0.0"


HOPPER_ALWAYS = 3
"""Patterns that no version of Triton is known to have mended."""


@pytest.mark.parametrize(
    ("versions", "generation", "interpreter", "count", "broken"),
    [
        ({"triton": "3.6.0"}, "hopper", False, HOPPER_ALWAYS + 1, False),
        ({"triton": "3.7.1"}, "hopper", False, HOPPER_ALWAYS, False),
        ({"triton": "3.3.1"}, "hopper", False, 0, False),
        ({"triton": "3.6.0"}, "ampere", False, 0, False),
        ({"triton": "3.6.0"}, None, False, 0, False),
        ({"triton": "3.2.0"}, "blackwell", False, 1, True),
        ({"triton": "3.3.0"}, "blackwell", False, 0, False),
        ({"triton": "3.6.0", "numpy": "2.4.1"}, None, True, 2, True),
        ({"triton": "3.6.0", "numpy": "2.3.5"}, None, True, 1, False),
        ({"triton": "3.6.0", "numpy": "2.4.1"}, None, False, 0, False),
        ({}, "hopper", True, 0, False),
    ],
)
def test_known_bad_combinations(
    versions: dict[str, str],
    generation: str | None,
    interpreter: bool,
    count: int,
    broken: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1" if interpreter else "0")
    findings = known_bad(versions, generation)
    assert len(findings) == count
    assert any(finding.broken for finding in findings) is broken


def test_every_known_bad_combination_says_what_to_do() -> None:
    assert all(bad.what and bad.todo and bad.versions for bad in KNOWN_BAD)
