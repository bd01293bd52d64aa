"""What is installed: versions against what the wheels declare, who else writes into ``fla/``, known-bad combinations.

Imports nothing but the standard library, PyTorch included, so that the doctor can say what is wrong with an
installation in which little works.
"""

from __future__ import annotations

import os
import re
import sys
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from importlib import metadata
from operator import eq, ge, gt, le, lt, ne
from pathlib import Path

#: Our wheels, each of which may be installed without those after it.
PARTS = ("fla-ops", "fla-modules", "fla-layers", "fla-models", "fla")
#: Distributions that are known to write into the same folder.
FOREIGN = ("fla-core", "flash-linear-attention")
#: Names under which Triton is distributed.
TRITON = ("triton", "pytorch-triton", "pytorch-triton-rocm", "pytorch-triton-xpu", "triton-windows")

_COMPARISONS = {"==": eq, "!=": ne, ">=": ge, "<=": le, ">": gt, "<": lt}
_REQUIREMENT = re.compile(r"^([\w.-]+)\s*(?:\[[^]]*\])?\s*\(?([^;()]*)\)?\s*(?:;(.*))?$")

Distributions = Mapping[str, metadata.Distribution]


@dataclass(frozen=True)
class Finding:
    """Something to tell the user: what it is, what to do about it, and whether anything is broken by it."""

    what: str
    todo: str
    broken: bool = True


@dataclass(frozen=True)
class Package:
    """An installed or wanted package. ``wanted`` is the version that our wheels declare, empty where they do not."""

    name: str
    version: str | None
    wanted: str = ""


@dataclass(frozen=True)
class ForeignOwner:
    """A distribution that is not ours and writes into ``fla/``: how many files, and how many of them are ours too."""

    name: str
    version: str
    files: int
    overlapping: int


@dataclass(frozen=True)
class KnownBad:
    """Versions that do not go together, on GPUs of some generations (on any machine where none is named).

    ``broken`` is False where the kernels of these wheels keep clear of the fault: it waits for kernels of one's own.
    """

    what: str
    todo: str
    versions: Mapping[str, str]
    generations: tuple[str, ...] = ()
    interpreter: bool = False
    broken: bool = False

    def applies(self, versions: Mapping[str, str], generation: str | None, interpreter: bool) -> bool:
        """Whether it is about packages of these versions on this GPU."""
        return (
            all(name in versions and satisfies(versions[name], wanted) for name, wanted in self.versions.items())
            and (not self.generations or generation in self.generations)
            and (interpreter or not self.interpreter)
        )


KNOWN_BAD = (
    KnownBad(
        "Triton before 3.3 has no code for Blackwell GPUs",
        "install PyTorch 2.7 or later for CUDA, which brings Triton 3.3 or later",
        {"triton": "<3.3"},
        ("blackwell",),
        broken=True,
    ),
    KnownBad(
        "Triton 3.6 in its interpreter fails on loops of variable length with NumPy 2.4",
        "install triton>=3.7 or numpy<2.4, or unset TRITON_INTERPRET",
        {"triton": ">=3.6,<3.7", "numpy": ">=2.4"},
        interpreter=True,
        broken=True,
    ),
    KnownBad(
        "Triton's interpreter multiplies bfloat16 operands of tl.dot as raw integers",
        "interpret kernels on float32 or float16 inputs",
        {"triton": ">=3.6"},
        interpreter=True,
    ),
    KnownBad(
        "Triton on Hopper: tl.dot(tl.trans(x), y), where x is the result of a tl.dot, gives wrong gradients",
        "compute the transposed product directly (K Q^T, not trans(Q K^T)), or install triton>=3.7.1",
        {"triton": ">=3.4,<3.7.1"},
        ("hopper",),
    ),
    KnownBad(
        "Triton on Hopper: 64-row tiles by 4 warps in the WY form's backward give wrong gradients of k and beta, "
        "32-wide tiles by 4 warps read out of bounds",
        "use 2 warps or other tiles, and test every tile that ships",
        {"triton": ">=3.4"},
        ("hopper",),
    ),
    KnownBad(
        "Triton on Hopper: x.to(the dtype that x has) before tl.dot(x, tl.trans(y)) changes the result",
        "leave the conversion out where the dtype is the same",
        {"triton": ">=3.4"},
        ("hopper",),
    ),
    KnownBad(
        "Triton on Hopper: 8 warps or more in chunked kernels give wrong results",
        "use 2 to 4 warps",
        {"triton": ">=3.4"},
        ("hopper",),
    ),
)


@dataclass(frozen=True)
class Environment:
    """What is installed, and what follows from that alone."""

    packages: tuple[Package, ...]
    foreign: tuple[ForeignOwner, ...]
    findings: tuple[Finding, ...] = field(default=())

    @property
    def versions(self) -> dict[str, str]:
        """Name -> version of what is installed."""
        return {package.name: package.version for package in self.packages if package.version is not None}


def release(version: str) -> tuple[int, ...]:
    """The numbers a version starts with: ``(2, 13)`` for 2.13.0+cpu; a pre-release counts as its release."""
    numbers = re.match(r"\d+(?:\.\d+)*", version)
    if numbers is None:
        return ()
    return tuple(map(int, re.sub(r"(\.0+)+$", "", numbers[0]).split(".")))


def satisfies(version: str, wanted: str) -> bool:
    """Whether a version meets conditions such as ``">=5.6.2,<6"``. Equality is to the letter: parts are pinned so."""
    for condition in filter(None, (part.strip() for part in wanted.split(","))):
        sign = re.match(r"[=!<>]=?", condition)
        if sign is None or sign[0] not in _COMPARISONS:
            raise ValueError(f"wanted: expected conditions with {', '.join(_COMPARISONS)}, got {condition!r}")
        bound = condition[sign.end() :].strip()
        if sign[0] in ("==", "!="):
            met = _COMPARISONS[sign[0]](version, bound)
        else:
            met = _COMPARISONS[sign[0]](release(version), release(bound))
        if not met:
            return False
    return True


def installed(path: Sequence[str] | None = None) -> dict[str, metadata.Distribution]:
    """Every distribution by its normalised name, the first on the path where there are several."""
    found: dict[str, metadata.Distribution] = {}
    for distribution in metadata.distributions(path=sys.path if path is None else list(path)):
        if name := distribution.metadata["Name"]:
            found.setdefault(_normalised(name), distribution)
    return found


def survey(distributions: Distributions | None = None) -> Environment:
    """Look at what is installed, or at the given distributions."""
    distributions = installed() if distributions is None else distributions
    packages = tuple(_packages(distributions))
    foreign = tuple(foreign_owners(distributions))
    findings = [
        *_foreign_findings(foreign),
        *_damage_findings(distributions, foreign),
        *_part_findings(distributions),
        *_version_findings(packages),
    ]
    return Environment(packages, foreign, tuple(findings))


def known_bad(versions: Mapping[str, str], generation: str | None) -> list[Finding]:
    """The known-bad combinations that these versions make on a GPU of this generation (None without one)."""
    interpreter = os.environ.get("TRITON_INTERPRET") == "1"
    return [
        Finding(bad.what, bad.todo, bad.broken) for bad in KNOWN_BAD if bad.applies(versions, generation, interpreter)
    ]


def foreign_owners(distributions: Distributions) -> Iterator[ForeignOwner]:
    """Distributions that are not ours and have files under ``fla/``, or are known to put some there."""
    ours = {file for name in PARTS if name in distributions for file in _recorded(distributions[name])}
    for name, distribution in distributions.items():
        if name not in PARTS:
            files = _recorded(distribution).keys()
            if files or name in FOREIGN:
                yield ForeignOwner(name, distribution.version, len(files), len(ours & files))


def damaged_files(distributions: Distributions) -> list[str]:
    """Files of our wheels that are gone or no longer what was installed."""
    return [
        file
        for name in PARTS
        if name in distributions
        for file, digest in _recorded(distributions[name]).items()
        if not _is_intact(Path(str(distributions[name].locate_file(file))), digest)
    ]


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _recorded(distribution: metadata.Distribution) -> dict[str, str]:
    """File under ``fla/`` -> its digest (empty where there is none), from the distribution's RECORD.

    The text is searched before it is taken apart: an environment has hundreds of records, some of many thousand lines.
    """
    record = distribution.read_text("RECORD") or ""
    if not re.search(r"^fla/", record, re.MULTILINE):
        return {}
    lines = (line.rsplit(",", 2) for line in record.splitlines() if line.startswith("fla/"))
    return {file: digest for file, digest, _ in lines if not file.endswith(".pyc")}


def _is_intact(path: Path, digest: str) -> bool:
    if not path.is_file():
        return False
    kind, _, expected = digest.partition("=")
    if kind != "sha256":
        return True
    return urlsafe_b64encode(sha256(path.read_bytes()).digest()).rstrip(b"=").decode() == expected


def _requirements(distribution: metadata.Distribution) -> Iterator[tuple[str, str, bool]]:
    """Name, wanted version and whether it is an extra's, for everything a distribution declares."""
    for requirement in distribution.requires or ():
        if match := _REQUIREMENT.match(requirement):
            name, wanted, marker = match.groups()
            yield _normalised(name), wanted.replace(" ", ""), "extra" in (marker or "")


def _packages(distributions: Distributions) -> Iterator[Package]:
    """Python, our parts, what they need, what is there of their extras, and what else matters."""
    ours = [distributions[name] for name in PARTS if name in distributions]
    python = next((part.metadata["Requires-Python"] for part in ours), None)
    yield Package("python", ".".join(map(str, sys.version_info[:3])), python or "")
    for part in ours:
        yield Package(_normalised(part.metadata["Name"]), part.version)
    wanted: dict[str, list[str]] = {}
    for part in ours:
        for name, condition, optional in _requirements(part):
            if name not in PARTS and (not optional or name == "triton" or name in distributions):
                wanted.setdefault(name, []).append(condition)
    for name, conditions in wanted.items():
        yield Package(name, _version(name, distributions), ",".join(dict.fromkeys(filter(None, conditions))))
    for name in ("torch", "triton", "numpy", "transformers"):
        version = _version(name, distributions)
        if name not in wanted and (version or name == "torch"):
            yield Package(name, version)


def _version(name: str, distributions: Distributions) -> str | None:
    names = TRITON if name == "triton" else (name,)
    return next((distributions[known].version for known in names if known in distributions), None)


def _foreign_findings(foreign: Iterable[ForeignOwner]) -> Iterator[Finding]:
    for owner in foreign:
        yield Finding(
            f"{owner.name} {owner.version} writes into the folder fla/ too, and pip does not notice: "
            f"{owner.files} files, {owner.overlapping} of them under names of ours",
            f"pip uninstall {owner.name}, then pip install --force-reinstall --no-deps the parts of fla that you use",
        )


def _damage_findings(distributions: Distributions, foreign: Sequence[ForeignOwner]) -> Iterator[Finding]:
    if files := damaged_files(distributions):
        some = ", ".join(files[:3]) + (", ..." if len(files) > 3 else "")
        parts = " ".join(name for name in PARTS if name in distributions)
        first = "after that, " if foreign else ""
        yield Finding(
            f"{len(files)} files of these wheels are gone or not what was installed: {some}",
            f"{first}pip install --force-reinstall --no-deps {parts}",
        )


def _part_findings(distributions: Distributions) -> Iterator[Finding]:
    versions = {name: distributions[name].version for name in PARTS if name in distributions}
    if not versions:
        yield Finding(
            "fla is not installed but imported from a folder: nothing tells which versions it needs",
            "pip install -e that folder",
            broken=False,
        )
    if len(set(versions.values())) > 1:
        listed = ", ".join(f"{name} {version}" for name, version in versions.items())
        yield Finding(f"the parts are of different versions: {listed}", f"pip install --upgrade {' '.join(versions)}")
    needed = {
        name
        for part in versions
        for name, _, optional in _requirements(distributions[part])
        if name in PARTS and not optional
    }
    for name in sorted(needed - set(versions)):
        yield Finding(f"{name} is not installed, and other parts need it", f"pip install {name}")


def _version_findings(packages: Iterable[Package]) -> Iterator[Finding]:
    for package in packages:
        if package.version is None:
            if package.name != "triton":
                yield Finding(f"{package.name} is not installed", f"pip install '{package.name}{package.wanted}'")
        elif not satisfies(package.version, package.wanted):
            todo = f"pip install '{package.name}{package.wanted}'"
            if package.name == "python":
                todo = f"use Python {package.wanted}"
            yield Finding(f"{package.name} {package.version} is not supported: {package.wanted} is", todo)
