"""The project's task runner: ``nox -l`` lists the sessions, ``nox`` runs those that need no GPU.

The graph between the packages is read from packages/*/pyproject.toml and is written nowhere else.
What is costly is shared: third-party packages are installed once per set of requirements, into a
folder under .nox, and a session's environment sees that folder through a .pth file. So a session
that borrows no more than its packages declare fails when they import something they do not declare.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import nox
from packaging.requirements import Requirement

nox.needs_version = ">=2024.4.15"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
# Those with pytest come last, so that its summaries stand at the end of the output. Every test runs once, from the
# wheels: "tests", which runs all of them again in one environment, is for work on the code.
nox.options.sessions = ["lint", "wheels", "aot", "examples", "interpret", "tests_package", "dependents"]

ROOT = Path(__file__).parent
CONSTRAINTS = ROOT / "constraints.txt"
DIST = ROOT / ".nox" / "dist"
TYPED_PROGRAM = "packages/fla/tests/typing/program.py"
#: What kernels are compiled ahead of time for: Ampere, Hopper, Blackwell.
ARCHITECTURES = ("80", "90", "100")
#: Compiling takes long: of every so many cases one is compiled for each architecture, another one with other commits.
TURNS = 12
#: The quick session runs one of so many shares of the tests.
QUICK_TURNS = 16
#: What is tested with Triton but without its interpreter: the packages' own environments have none.
WITH_TRITON = ("test_*_grids.py", "test_utils_aot.py", "test_plans_launch.py")
#: From the oldest that fla-ops allows to the newest: what is launched without Triton's own help is tested with each.
TRITON_VERSIONS = ("3.3.0", "3.4.0", "3.5.1", "3.6.0", "3.7.1", "3.8.0", "3.9.0")
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
WORKERS = min(CORES, 8)
TEST_ENV = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}

# uv installs no bytecode: what imports a shared folder first has to be allowed to write it.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def _find_links() -> str:
    """Folders of wheels that pip is told of; uv does not read pip's settings."""
    command = [sys.executable, "-m", "pip", "config", "get", "global.find-links"]
    links = os.environ.get("PIP_FIND_LINKS") or subprocess.run(command, capture_output=True, text=True).stdout
    return ",".join(links.split())


if "UV_FIND_LINKS" not in os.environ and (links := _find_links()):
    os.environ["UV_FIND_LINKS"] = links


# The graph


@dataclass(frozen=True)
class Package:
    """One of the wheels, as its pyproject.toml describes it; ``parts`` are the names it puts under ``fla``."""

    name: str
    folder: Path
    sources: tuple[Path, ...]
    parts: tuple[str, ...]
    requirements: tuple[Requirement, ...]
    extras: dict[str, tuple[Requirement, ...]]
    test: tuple[str, ...]

    @property
    def tests(self) -> Path:
        return self.folder / "tests"


def _read(pyproject: Path) -> Package:
    data: dict[str, Any] = nox.project.load_toml(pyproject)
    project, folder = data["project"], pyproject.parent
    sources = [folder / path for path in data["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]]
    parts = [".".join(path.relative_to(folder / "src").parts) for path in sources if path.is_dir()]
    extras = project.get("optional-dependencies", {})
    return Package(
        name=project["name"],
        folder=folder.relative_to(ROOT),
        sources=tuple(path.relative_to(ROOT) for path in sources),
        parts=tuple(parts or ["fla"]),
        requirements=tuple(map(Requirement, project["dependencies"])),
        extras={extra: tuple(map(Requirement, listed)) for extra, listed in extras.items()},
        test=tuple(data["dependency-groups"]["test"]),
    )


class Resolved(NamedTuple):
    """What some requirements come to: names of packages of ours, and requirements on those of others."""

    siblings: frozenset[str]
    others: frozenset[str]


def resolve(*wanted: str) -> Resolved:
    siblings, others = set(), set()
    queue = [Requirement(item) for item in wanted]
    while queue:
        requirement = queue.pop()
        package = PACKAGES.get(requirement.name)
        if package is None:
            others.add(str(requirement))
            continue
        siblings.add(package.name)
        queue += package.requirements
        queue += [item for extra in requirement.extras for item in package.extras[extra]]
    return Resolved(frozenset(siblings), frozenset(others))


PACKAGES = {package.name: package for package in map(_read, ROOT.glob("packages/*/pyproject.toml"))}
# In the order in which they build on each other.
PACKAGES = {name: PACKAGES[name] for name in sorted(PACKAGES, key=lambda name: len(resolve(name).siblings))}
DEPENDENTS = {
    name: [other for other in PACKAGES if other != name and name in resolve(other).siblings] for name in PACKAGES
}


SessionT = TypeVar("SessionT", bound=Callable[..., None])


def per_package(names: Iterable[str]) -> Callable[[SessionT], SessionT]:
    """Make one session of each of some packages, named after it."""
    return nox.parametrize("package", [nox.param(PACKAGES[name], id=name) for name in names])


# Environments


def install(session: nox.Session, *args: str | Path) -> None:
    session.install("-c", str(CONSTRAINTS), *map(str, args))


def shared_folder(session: nox.Session, requirements: Iterable[str]) -> Path:
    """A folder that holds these packages and all that they need, filled when it is first wanted."""
    wanted = sorted(set(requirements))
    content = "\n".join([sys.version, session.venv_backend, CONSTRAINTS.read_text(), *wanted])
    folder = session.cache_dir.resolve() / f"shared-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    if not folder.exists():
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        install(session, "--no-compile", "--target", part, *wanted)
        part.rename(folder)
    return folder


def borrow(session: nox.Session, requirements: Iterable[str]) -> None:
    """Let the session import these third-party packages, and what they need, and no others."""
    folder = shared_folder(session, requirements)
    where = session.run(
        "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", silent=True, log=False
    )
    Path(str(where).strip(), "borrowed.pth").write_text(f"{folder}\n")


def with_extras(names: Iterable[str]) -> list[str]:
    return [f"{name}[{','.join(PACKAGES[name].extras)}]" for name in names]


def everything() -> frozenset[str]:
    """Third-party requirements of all packages with all extras, of their tests, and the developers' tools."""
    wanted = with_extras(PACKAGES)
    wanted += [item for package in PACKAGES.values() for item in package.test]
    lines = (ROOT / "requirements-dev.txt").read_text().splitlines()
    tools = [line for line in lines if line and not line.startswith(("-", "#"))]
    return resolve(*wanted, *tools).others


def editable_flags(extra: str = "") -> list[str]:
    folders = [f"{p.folder}[{extra}]" if extra in p.extras else str(p.folder) for p in PACKAGES.values()]
    return [flag for folder in folders for flag in ("-e", folder)]


def editable(session: nox.Session) -> None:
    """All packages from the working tree, in one environment with everything."""
    borrow(session, everything())
    install(session, "--no-deps", "--no-build-isolation", *editable_flags())


_built: list[Path] = []


def built_wheels(session: nox.Session, names: Iterable[str] = PACKAGES) -> list[Path]:
    """The wheels of some packages; the first call in a run builds every sdist, and from it the wheel."""
    if not _built:
        shutil.rmtree(DIST, ignore_errors=True)
        backend = shared_folder(session, ["build", "hatchling"])
        for package in PACKAGES.values():
            command = ("python", "-m", "build", "--no-isolation", "--outdir", DIST, package.folder)
            session.run(*command, env={"PYTHONPATH": str(backend)}, silent=True)
        _built.extend(sorted(DIST.glob("*.whl")))
    return [wheel for name in sorted(names) for wheel in _built if wheel.name.startswith(name.replace("-", "_") + "-")]


# Tests


def ruff(session: nox.Session) -> None:
    session.run("python", "-m", "ruff", "check", ".")
    session.run("python", "-m", "ruff", "format", "--check", ".")


def pytest(session: nox.Session, *args: str | Path, **env: str) -> None:
    session.run("python", "-m", "pytest", "-n", str(WORKERS), *args, env={**TEST_ENV, **env})


_passed: dict[str, bool] = {}


def tests_from_wheels(session: nox.Session, name: str) -> None:
    """Run the tests of a package, installed from wheels, with only what it and its tests declare; once in a run."""
    if name in _passed:
        session.log(f"the tests of {name} have {'passed' if _passed[name] else 'failed'} in this run of nox")
        if not _passed[name]:
            session.error("see the failures above")
        return
    _passed[name] = False
    environment = resolve(name, *PACKAGES[name].test)
    borrow(session, environment.others)
    install(session, "--no-deps", "--force-reinstall", *built_wheels(session, environment.siblings))
    if any("interpret" not in path.parts for path in PACKAGES[name].tests.glob("**/test_*.py")):
        pytest(session, PACKAGES[name].tests, *session.posargs)
    else:
        session.warn(f"{name} has no tests")
    _passed[name] = True


@nox.session
def tests(session: nox.Session) -> None:
    """Every test, in one environment with all packages editable; what follows -- goes to pytest."""
    editable(session)
    pytest(session, *session.posargs)


@nox.session
def quick(session: nox.Session) -> None:
    """Ruff, and every sixteenth test of all packages: some minutes, for while one works. Each commit takes its turn."""
    editable(session)
    ruff(session)
    pytest(session, "--share", f"{commit_number() % QUICK_TURNS + 1}/{QUICK_TURNS}", *session.posargs)


@nox.session
@per_package(PACKAGES)
def tests_package(session: nox.Session, package: Package) -> None:
    """The tests of one package, installed from its wheel with only what it declares."""
    tests_from_wheels(session, package.name)


@nox.session
@per_package(name for name in PACKAGES if DEPENDENTS[name])
def dependents(session: nox.Session, package: Package) -> None:
    """The tests of the packages that need this one, each installed from its wheel beside this one's."""
    for name in DEPENDENTS[package.name]:
        tests_from_wheels(session, name)


@nox.session
def interpret(session: nox.Session) -> None:
    """The kernels in Triton's interpreter: the tests under packages/*/tests/interpret."""
    editable(session)
    pytest(session, *ROOT.glob("packages/*/tests/interpret"), *session.posargs, TRITON_INTERPRET="1")


@nox.session
def margins(session: nox.Session) -> None:
    """How near to their limits errors come under several kinds of processor arithmetic; needs an hour for all tests."""
    editable(session)
    session.run("python", "tools/margins.py", "-n", str(WORKERS), *session.posargs, env=TEST_ENV)


def commit_number() -> int:
    """The number that names the commit; 0 where there is none."""
    if shutil.which("git") is None:
        return 0
    command = ["git", "rev-parse", "--verify", "--quiet", "HEAD"]
    return int(subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout.strip() or "0", 16)


@nox.session
def aot(session: nox.Session) -> None:
    """Kernels and tile-table entries compiled ahead of time, without a GPU, with their resources reported.

    Each commit takes its turn of the cases; ``nox -s aot -- --cases 1/1`` compiles all of them for every architecture.
    """
    editable(session)
    pytest(session, *(path for name in WITH_TRITON for path in ROOT.glob(f"packages/*/tests/{name}")))
    turn = commit_number()

    def compile_share(share: str, arch: str) -> Any:
        # Some instructions end the compiler's process on another architecture: one process for each.
        spread = TURNS // len(ARCHITECTURES) * ARCHITECTURES.index(arch)
        cases = ("--cases", f"{(turn + spread) % TURNS + 1}/{TURNS}", *session.posargs)
        command = ("python", "-m", "fla.utils.testing.aot", "--arch", arch, "--share", share, *cases)
        return session.run(*command, env={"OMP_NUM_THREADS": "1"}, silent=True, success_codes=[0, 1])

    # Shares keep all workers busy to the end.
    shares = [(f"{i + 1}/{WORKERS}", arch) for arch in ARCHITECTURES for i in range(WORKERS)]
    with ThreadPoolExecutor(WORKERS) as pool:
        reports = [str(report) for report in pool.map(lambda share: compile_share(*share), shares)]
    print("\n".join(reports))
    if not all(", 0 faults" in report for report in reports):
        session.error("see the faults above")


@nox.session
def triton_versions(session: nox.Session) -> None:
    """Plans with every version of Triton from the oldest to the newest; 200 MB for each, so not by default."""
    editable(session)
    for version in TRITON_VERSIONS:
        session.install("--no-deps", f"triton=={version}")
        session.run("python", "-m", "pytest", *ROOT.glob("packages/*/tests/test_plans*.py"), "-q", env=TEST_ENV)


@nox.session
def gpu(session: nox.Session) -> None:
    """Every test on the GPU of this machine, conformance, and times; what follows -- goes to tools/gpu.py."""
    editable(session)
    session.run("python", "tools/gpu.py", *session.posargs)


@nox.session
def transformers_newest(session: nox.Session) -> None:
    """The tests of the packages that stand on transformers, with the newest release they allow."""
    editable(session)
    users = [p for p in PACKAGES.values() if any(r.name == "transformers" for r in p.requirements)]
    allowed = [str(r) for p in users for r in p.requirements if r.name == "transformers"]
    pins = [line for line in CONSTRAINTS.read_text().splitlines() if not line.startswith("transformers==")]
    others = Path(session.create_tmp(), "constraints.txt")
    others.write_text("\n".join(pins))
    session.install("--upgrade", "-c", str(others), *allowed)
    session.run("python", "-c", "import transformers; print('transformers', transformers.__version__)")
    pytest(session, *(p.tests for p in users), *session.posargs)


# Checks


@nox.session(reuse_venv=False)
@per_package(PACKAGES)
def wheels(session: nox.Session, package: Package) -> None:
    """One wheel, alone with what it declares in a clean environment: its files, its imports, one thing done."""
    siblings, required = resolve(package.name)
    install(session, *built_wheels(session, siblings))
    check_files(session)
    possible = resolve(*with_extras(siblings), *package.test).others
    optional = sorted({Requirement(item).name for item in possible - required})
    with session.chdir(session.create_tmp()):
        session.run("python", ROOT / "tools" / "import_all.py", *package.parts, "--optional", *optional)
        session.run("python", ROOT / package.tests / "smoke.py")
    if TYPED_PROGRAM.startswith(str(package.folder)):
        install(session, "mypy", "pyright")
        check_types(session)


def check_files(session: nox.Session) -> None:
    """Each wheel holds its own parts, marked as typed, and nothing else; just one holds ``fla/__init__.py``."""
    seen: set[str] = set()
    for name in PACKAGES:
        (wheel,) = built_wheels(session, [name])
        with zipfile.ZipFile(wheel) as archive:
            files = set(archive.namelist())
        parts = [part.replace(".", "/") + "/" for part in PACKAGES[name].parts]
        foreign = {file for file in files if not file.startswith((*parts, name.replace("-", "_") + "-"))}
        missing = {part + "py.typed" for part in parts} - files
        if foreign or missing or files & seen:
            session.error(f"{wheel.name}: foreign {foreign}, missing {missing}, in another wheel too {files & seen}")
        seen |= files
    if "fla/__init__.py" not in seen:
        session.error("no wheel holds fla/__init__.py")


def check_types(session: nox.Session) -> None:
    """A small program that uses the menu, as mypy and pyright see it in this environment."""
    session.run("python", "-m", "mypy", "--config-file=", "--strict", TYPED_PROGRAM)
    session.run("python", "-m", "pyright", "--warnings", TYPED_PROGRAM)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff, its formatter, the versions, and mypy in strict mode on host code."""
    editable(session)
    ruff(session)
    session.run("python", "tools/bump.py", "--check")
    session.run("python", "tools/readme.py", "--check")
    sources = [path for package in PACKAGES.values() for path in package.sources if path.suffix in ("", ".py")]
    roots = os.pathsep.join(str(package.folder / "src") for package in PACKAGES.values())
    session.run("python", "-m", "mypy", *sources, "noxfile.py", "tools", env={"MYPYPATH": roots})


# Programs


@nox.session
def examples(session: nox.Session) -> None:
    """The programs of the README, each to its end."""
    editable(session)
    for program in sorted(ROOT.glob("examples/*.py")):
        session.run("python", program)


@nox.session
def quickstart(session: nox.Session) -> None:
    """Train a small model on real text and let it write; what follows -- goes to fla.models.train."""
    session.log("installing; PyTorch is large, so the first time takes minutes")
    install(session, *editable_flags("train"))
    session.run("python", "-m", "fla.models.train", *session.posargs)
    python = Path(session.bin, "python").relative_to(ROOT)
    session.log(
        f"more text from the checkpoint named above: {python} -m fla.models.generate CHECKPOINT --prompt 'def '"
    )


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmarks; what follows -- goes to benchmarks/run.py."""
    editable(session)
    session.run("python", "benchmarks/run.py", *session.posargs)
