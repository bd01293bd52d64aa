"""A Triton driver that compiles and runs nothing: kernels can be checked for a GPU that is not there.

After ``use(90)`` host code takes CPU tensors with ``backend="triton"``. Each launch is compiled for that GPU, checked
against its shared memory and its limits of a grid, and recorded; results stay unwritten. ``use(90, compiling=False)``
checks and records grids alone, in milliseconds. One process for each architecture: Triton keeps the limits of the
first, and some instructions end the compiler's process on another architecture. Works with Triton 3.3 to
3.9.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase
from triton.runtime.cache import get_cache_manager

from fla.utils.backends import INTERPRETED, allow_triton_on_cpu
from fla.utils.testing.hazards import overwritten_operands
from fla.utils.testing.overflow import overflowing_offsets
from fla.utils.tiles import MOST_HEADS, MOST_PROGRAMS, pretend_arch

Arch = int | str

#: Shared memory that a block can have, by architecture: NVIDIA's as ``10 * major + minor``, AMD's by its name.
SHARED_MEMORY: dict[Arch, int] = {
    80: 166912,
    86: 101376,
    89: 101376,
    90: 232448,
    100: 232448,
    120: 101376,
    "gfx942": 65536,
    "gfx950": 163840,
}

_CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
_RESOURCES = re.compile(r"REG:(\d+) STACK:(\d+)")


@dataclass(frozen=True)
class Resources:
    """What a thread of a compiled kernel takes."""

    registers: int
    stack_bytes: int
    """Spilled registers and local arrays."""


@dataclass(frozen=True)
class Launch:
    """A kernel as it was compiled for one launch; launches of the same specialisation make one record."""

    kernel: str
    constants: dict[str, Any]
    """The arguments that are compile-time constants, tile sizes among them."""
    num_warps: int
    num_stages: int
    shared_bytes: int
    resources: Resources | None
    """None where no tool reads them: AMD."""
    overwritten: tuple[str, ...] = ()
    """Operands in shared memory that are overwritten while a product reads them: see ``hazards.py``."""
    overflowing: tuple[str, ...] = ()
    """Offsets of pointers that overflow where operands are large: see ``overflow.py``."""


@dataclass(frozen=True)
class Grid:
    """The grid of one launch; each launch makes one, whether it is the first of its specialisation or not."""

    kernel: str
    """With its module."""
    size: tuple[int, int, int]


class Recorded(NamedTuple):
    """What the launches of a process add to."""

    launches: list[Launch]
    grids: list[Grid]


def use(arch: Arch, *, compiling: bool = True) -> Recorded:
    """Compile every launch of this process for ``arch`` from now on; returns the lists that launches are added to.

    A launch raises RuntimeError where a GPU would not take its grid.

    Args:
        arch: a key of :data:`SHARED_MEMORY`.
        compiling: False to record grids alone.

    Raises:
        ValueError: an unknown architecture.
        RuntimeError: under Triton's interpreter, which compiles nothing.
    """
    if arch not in SHARED_MEMORY:
        raise ValueError(f"arch: expected one of {', '.join(map(str, SHARED_MEMORY))}, got {arch!r}")
    if INTERPRETED:
        raise RuntimeError("TRITON_INTERPRET=1: the interpreter compiles nothing; unset it")
    target = GPUTarget("cuda", arch, 32) if isinstance(arch, int) else GPUTarget("hip", arch, 64)
    driver = _DryDriver(target)
    triton.runtime.driver.set_active(driver)
    allow_triton_on_cpu()
    pretend_arch(arch if isinstance(arch, int) else 0)
    if not compiling:
        # JITFunction looks the name up here when it meets a device.
        triton.compiler.compile = driver.utils.compile_nothing
    return driver.utils.recorded


class _Utils:
    """What Triton's compiler asks about a device, and where it hands its binaries to."""

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        self.recorded = Recorded([], [])
        self._source: Any = None
        self._metadata: Any = None

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": SHARED_MEMORY[self.arch], "multiprocessor_count": 132, "warpSize": 32}

    def make_launcher(self, source: Any, metadata: Any) -> Callable[..., None]:
        """Called just before :meth:`load_binary` of the same kernel, which is told less."""
        self._source, self._metadata = source, metadata
        return partial(self.launch_nothing, _name(source))

    def launch_nothing(self, kernel: str, x: int, y: int, z: int, *_: Any) -> None:
        """Check and record a launch."""
        if max(y, z) > MOST_HEADS or x * y * z > MOST_PROGRAMS:
            limits = f"{MOST_PROGRAMS} programs and {MOST_HEADS} on the second and third axis"
            raise RuntimeError(f"{kernel}: expected a grid of at most {limits}, got {(x, y, z)}")
        self.recorded.grids.append(Grid(kernel, (x, y, z)))

    def compile_nothing(self, source: Any, **_: Any) -> SimpleNamespace:
        """In place of ``triton.compile``: what Triton asks of a compiled kernel to launch it."""
        return SimpleNamespace(
            run=partial(self.launch_nothing, _name(source)),
            launch_metadata=lambda *_: None,
            function=None,
            packed_metadata=None,
        )

    def load_binary(self, name: str, binary: bytes, shared: int, device: int) -> tuple[int, ...]:
        resources = _resources(binary) if isinstance(self.arch, int) else None
        constants = _constants(self._source)
        metadata = self._metadata
        overwritten, overflowing = (
            tuple(faults)
            for faults in (overwritten_operands(self._stage("ttgir")), overflowing_offsets(self._stage("ttir")))
        )
        self.recorded.launches.append(
            Launch(
                name, constants, metadata.num_warps, metadata.num_stages, shared, resources, overwritten, overflowing
            )
        )
        registers, stack_bytes = (0, 0) if resources is None else (resources.registers, resources.stack_bytes)
        loaded = 1, 1, registers, stack_bytes
        return loaded if triton.__version__.startswith("3.3.") else (*loaded, 1024)

    def _stage(self, name: str) -> str:
        """What Triton has made of the kernel by that stage, empty where it keeps none."""
        path = get_cache_manager(self._metadata.hash).get_file(f"{self._metadata.name}.{name}")
        return "" if path is None else Path(path).read_text()


class _DryDriver(DriverBase):  # type: ignore[misc]
    def __init__(self, target: GPUTarget) -> None:
        super().__init__()
        self.target = target
        self.utils = _Utils(target.arch)
        self.launcher_cls = self.utils.make_launcher

    @classmethod
    def is_active(cls) -> bool:
        return True

    def map_python_to_cpp_type(self, ty: str) -> str:
        return ty

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def set_current_device(self, device: int) -> None:
        pass

    def get_current_stream(self, device: int | None = None) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_benchmarker(self) -> Callable[..., list[float]]:
        raise RuntimeError("nothing runs under this driver, so nothing can be timed")


def _name(source: Any) -> str:
    return f"{source.fn.__module__}.{source.fn.__name__}"


def _constants(source: Any) -> dict[str, Any]:
    """The arguments declared as ``tl.constexpr``; None and 1, which Triton makes constants of as well, are not."""
    named = {source.fn.arg_names[path[0]]: value for path, value in source.constants.items() if len(path) == 1}
    return {p.name: named[p.name] for p in source.fn.params if p.is_constexpr and p.name in named}


def _resources(cubin: bytes) -> Resources:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(_CUOBJDUMP), "--dump-resource-usage", file.name]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = _RESOURCES.search(report)
    if found is None:
        raise RuntimeError(f"cuobjdump reports no resource usage: {report!r}")
    return Resources(int(found[1]), int(found[2]))
