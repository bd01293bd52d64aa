"""Compile the kernels of every family ahead of time, without a GPU, and report what they take of it.

    python -m fla.utils.testing.aot --arch 90 [--family gla] [--share 1/2] [--cases 1/2] [--json FILE]

A family takes part by ``aot_cases()`` in its spec module: pairs of a name and a function without arguments that calls
the family's ops with ``backend="triton"`` on CPU tensors. The program fails where a kernel does not compile, needs more
shared memory than a block can have, overwrites what a product still reads (``hazards.py``), computes offsets that
overflow 32 bits (``overflow.py``), or spills more than :data:`MAX_SPILL_BYTES` a thread. A spec module may allow a
kernel more, and says why beside it: ``AOT_SPILL_ALLOWANCE = {"scan_fwd_kernel": 128}``.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

from fla.utils.testing.dry_gpu import SHARED_MEMORY, Arch, Launch, use

PARTS = ("fla.ops", "fla.modules")
#: Bytes of stack a thread that a kernel may use.
MAX_SPILL_BYTES = 64

_HEADER = f"  {'kernel':<28}{'registers':>10}{'stack':>7}{'shared':>8}{'warps':>7}{'stages':>8}  constants"


@dataclass(frozen=True)
class Compiled:
    """A kernel, the case that launched it first, and what is wrong with it (empty if nothing)."""

    family: str
    case: str
    launch: Launch
    fault: str

    def as_row(self) -> str:
        """A line of the table."""
        launch = self.launch
        resources = launch.resources
        registers, stack = ("?", "?") if resources is None else (resources.registers, resources.stack_bytes)
        constants = " ".join(f"{name}={value}" for name, value in launch.constants.items())
        row = (
            f"{launch.kernel:<28}{registers:>10}{stack:>7}{launch.shared_bytes:>8}"
            f"{launch.num_warps:>7}{launch.num_stages:>8}  {constants}"
        )
        return f"{row}  FAILED: {self.fault}" if self.fault else row


@dataclass(frozen=True)
class Failed:
    """A case that raised, as a kernel does that does not compile or needs too much shared memory."""

    family: str
    case: str
    fault: str
    details: str

    def as_row(self) -> str:
        """What stands in the table: the error's whole story."""
        return "\n".join(filter(None, (f"{self.case}  FAILED: {self.fault}", self.details)))


@dataclass
class Result:
    """All that was compiled for an architecture."""

    arch: Arch
    compiled: list[Compiled] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)

    @property
    def faults(self) -> list[Compiled | Failed]:
        """What is wrong."""
        return [*self.failed, *(kernel for kernel in self.compiled if kernel.fault)]


def spec_modules(parts: Iterable[str] = PARTS) -> Iterator[ModuleType]:
    """The spec modules of all families that say how to compile them; parts that are not installed have none."""
    for part in parts:
        if find_spec(part) is None:
            continue
        for family in iter_modules(import_module(part).__path__, f"{part}."):
            if family.ispkg and find_spec(f"{family.name}.spec") is not None:
                module = import_module(f"{family.name}.spec")
                if hasattr(module, "aot_cases"):
                    yield module


def compile_family(
    module: ModuleType,
    launches: list[Launch],
    report: Callable[[str], None],
    result: Result,
    share: tuple[int, int] = (1, 1),
) -> None:
    """Run a share of the cases of a family under the dry driver and add what they launched to ``result``."""
    family = module.__name__.split(".")[-2]
    allowance: Mapping[str, int] = getattr(module, "AOT_SPILL_ALLOWANCE", {})
    first, step = share
    for case, launch_kernels in islice(module.aot_cases(), first - 1, None, step):
        seen = len(launches)
        failed = None
        try:
            launch_kernels()
        except Exception as error:  # noqa: BLE001 - whatever it is, the other cases are to be seen as well
            failed = _failed(family, case, error)
        compiled = [Compiled(family, case, launch, fault_of(launch, allowance)) for launch in launches[seen:]]
        result.compiled += compiled
        if compiled:
            report("\n".join([case, *(f"  {kernel.as_row()}" for kernel in compiled)]))
        if failed is not None:
            result.failed.append(failed)
            report(failed.as_row())


def _failed(family: str, case: str, error: BaseException) -> Failed:
    """Triton's errors quote the source, and the reason stands in the last of what caused them."""
    details = []
    while error.__cause__ is not None:
        details.append(str(error))
        error = error.__cause__
    return Failed(family, case, f"{type(error).__name__}: {error}", "\n".join(details))


def fault_of(launch: Launch, allowance: Mapping[str, int]) -> str:
    """What is wrong with a kernel, empty for nothing."""
    if launch.overwritten:
        return f"{launch.kernel} overwrites {', '.join(launch.overwritten)} while a product reads it: see hazards.py"
    if launch.overflowing:
        return f"{launch.kernel} computes offsets in 32 bits that may overflow: {'; '.join(launch.overflowing)}"
    limit = allowance.get(launch.kernel, MAX_SPILL_BYTES)
    if launch.resources is None or launch.resources.stack_bytes <= limit:
        return ""
    return f"{launch.kernel} uses {launch.resources.stack_bytes} bytes of stack, {limit} allowed"


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile, print a table, and return 1 where something is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m fla.utils.testing.aot", description="Compile kernels without a GPU."
    )
    parser.add_argument("--arch", type=_arch, required=True, help=f"one of {', '.join(map(str, SHARED_MEMORY))}")
    parser.add_argument("--family", action="append", help="this family alone; may be given again")
    parser.add_argument("--share", type=_share, default=(1, 1), metavar="I/N", help="every Nth family from the Ith on")
    parser.add_argument("--cases", type=_share, default=(1, 1), metavar="I/N", help="every Nth case of a family")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")
    options = parser.parse_args(arguments)
    modules = {module.__name__.split(".")[-2]: module for module in spec_modules()}
    if unknown := set(options.family or ()) - set(modules):
        parser.error(f"--family: expected one of {', '.join(modules)}, got {', '.join(sorted(unknown))}")
    faulthandler.enable()  # the compiler ends the process on what it cannot do, and then this tells where
    launches = use(options.arch).launches
    result = Result(options.arch)
    first, step = options.share
    for family in (options.family or list(modules))[first - 1 :: step]:
        print(f"\n{family} on {options.arch}\n{_HEADER}", flush=True)
        compile_family(modules[family], launches, lambda row: print(row, flush=True), result, options.cases)
    if options.json:
        options.json.write_text(json.dumps(asdict(result), indent=2))
    print(f"\n{len(result.compiled)} kernels for {options.arch}, {len(result.faults)} faults")
    for fault in result.faults:
        print(f"{fault.family}, {fault.case}: {fault.fault}")
    return 1 if result.faults else 0


def _arch(text: str) -> Arch:
    arch: Arch = int(text) if text.isdecimal() else text
    if arch not in SHARED_MEMORY:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(map(str, SHARED_MEMORY))}, got {text}")
    return arch


def _share(text: str) -> tuple[int, int]:
    first, _, step = text.partition("/")
    if not (first.isdecimal() and step.isdecimal() and 1 <= int(first) <= int(step)):
        raise argparse.ArgumentTypeError(f"expected I/N with I from 1 to N, got {text}")
    return int(first), int(step)


if __name__ == "__main__":
    sys.exit(main())
