"""``python -m fla.utils``: what the machine has, which backend each op takes here and why, and what is broken.

Whatever else is installed may have replaced files of ours, so the other modules are imported where they are needed
and what they raise becomes a finding.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fla.utils.environment import Environment, Finding, known_bad, survey

if TYPE_CHECKING:
    from fla.utils.hardware import Hardware
    from fla.utils.spec import Spec

#: Parts whose families say in a spec what they are.
PARTS_WITH_SPECS = ("fla.ops", "fla.modules")
_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class OpBackend:
    """The backend that the functions of a family take here (None where they raise), and why."""

    part: str
    family: str
    functions: tuple[str, ...]
    backend: str | None
    reason: str


@dataclass(frozen=True)
class Report:
    """All that the doctor has to say."""

    hardware: tuple[Hardware, ...]
    environment: Environment
    backends: tuple[OpBackend, ...]
    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing is broken."""
        return not any(finding.broken for finding in self.findings)

    def as_json(self) -> str:
        """The report as a JSON object."""
        content: dict[str, Any] = {
            "healthy": self.healthy,
            "hardware": [asdict(device) for device in self.hardware],
            "packages": [asdict(package) for package in self.environment.packages],
            "foreign": [asdict(owner) for owner in self.environment.foreign],
            "backends": [asdict(backend) for backend in self.backends],
            "findings": [asdict(finding) for finding in self.findings],
        }
        return json.dumps(content, indent=2)

    def as_text(self) -> str:
        """The report for one screen."""
        rows = [
            *(("hardware", line) for line in _hardware_lines(self.hardware)),
            *(("versions", line) for line in _version_lines(self.environment)),
            *(("backends", line) for line in _backend_lines(self.backends)),
            *(("findings", line) for line in _finding_lines(self.findings)),
        ]
        lines = []
        for title, group in groupby(rows, key=lambda row: row[0]):
            lines += [f"{title if i == 0 else '':<10}{line}".rstrip() for i, (_, line) in enumerate(group)]
        verdict = "nothing is broken" if self.healthy else "something is broken: see the findings"
        return "\n".join([*lines, "", verdict])


def op_backends(device: str, part: str) -> list[OpBackend]:
    """The backend that every family of a part takes for tensors on ``device``, and why.

    Args:
        device: PyTorch's device type. On a GPU the answer is for bfloat16, elsewhere for float32.
        part: ``"fla.ops"`` or ``"fla.modules"``; one that is not installed has no families.

    Raises:
        Exception: whatever importing the part raises.
    """
    from fla.utils.spec import specs

    if find_spec(part) is None:
        return []
    wanted, reason = _choice(device)
    return [_op_backend(part, spec, wanted, reason) for spec in specs(part)]


def _choice(device: str) -> tuple[str | None, str]:
    import torch

    from fla.utils.backends import GPU_DEVICE_TYPES, explain_backend

    try:
        return explain_backend(device, torch.bfloat16 if device in GPU_DEVICE_TYPES else torch.float32)
    except ValueError as error:
        return None, str(error)


def _op_backend(part: str, spec: Spec, wanted: str | None, reason: str) -> OpBackend:
    if wanted is None or wanted in spec.backends:
        return OpBackend(part, spec.name, spec.functions, wanted, reason)
    backend = next(backend for backend in spec.backends if backend != "triton")
    return OpBackend(part, spec.name, spec.functions, backend, f"there is no {wanted} backend of it")


def examine(environment: Environment | None = None) -> Report:
    """Look at hardware, versions and backends, and draw the conclusions."""
    environment = survey() if environment is None else environment
    findings = list(environment.findings)
    hardware: tuple[Hardware, ...] = ()
    backends: list[OpBackend] = []
    if "torch" in environment.versions:
        hardware = _attempt("probing the hardware", _probe, findings) or ()
        device = hardware[0].device if hardware else "cpu"
        for part in PARTS_WITH_SPECS:
            backends += _attempt(f"importing {part}", partial(op_backends, device, part), findings) or []
    findings += conclusions(environment, hardware, backends)
    return Report(hardware, environment, tuple(backends), tuple(dict.fromkeys(findings)))


def conclusions(
    environment: Environment, hardware: Sequence[Hardware], backends: Iterable[OpBackend]
) -> Iterator[Finding]:
    """What follows from hardware, versions and backends together: what is broken first, then what to install next."""
    versions = environment.versions
    for reason in dict.fromkeys(backend.reason for backend in backends if backend.backend is None):
        yield Finding(f"ops raise here: {reason}", "unset FLA_BACKEND, or set it to a backend that this machine has")
    for generation in dict.fromkeys(device.tensor_core_generation for device in hardware):
        yield from known_bad(versions, generation)
    if any(device.device in ("cuda", "xpu") for device in hardware) and "triton" not in versions:
        yield Finding("a GPU, but no Triton for its kernels", "pip install 'fla-ops[triton]'", broken=False)
    if _is_below_ampere(hardware):
        yield Finding(
            "a GPU older than Ampere has no bfloat16, and the kernels are not tested on it",
            "use float16 or float32; if a kernel fails, FLA_BACKEND=torch",
            broken=False,
        )
    if hardware and not hardware[0].is_gpu and _NVIDIA_DRIVER.exists() and _is_cpu_build():
        yield Finding(
            "an NVIDIA driver, but a PyTorch without CUDA",
            "install PyTorch for CUDA: https://pytorch.org/get-started/locally",
            broken=False,
        )
    if "fla-models" not in versions:
        yield Finding("no models here: fla-models is not installed", "pip install fla-models", broken=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; 0 when nothing is broken, else 1."""
    parser = argparse.ArgumentParser(prog="python -m fla.utils", description="What works here, and what is broken.")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    options = parser.parse_args(arguments)
    report = examine()
    print(report.as_json() if options.json else report.as_text())
    return 0 if report.healthy else 1


def _probe() -> tuple[Hardware, ...]:
    from fla.utils.hardware import every_device

    return every_device()


def _attempt(doing: str, action: Callable[[], ResultT], findings: list[Finding]) -> ResultT | None:
    try:
        return action()
    except Exception as error:  # noqa: BLE001 - a damaged installation can raise anything
        if str(error).startswith(("FLA_BACKEND", "FLA_DEBUG")):
            finding = Finding(str(error), "set it right, or unset it")
        else:
            reason = f"{type(error).__name__}: {error}"
            finding = Finding(f"{doing} failed: {reason}", "pip install --force-reinstall --no-deps fla-ops")
        findings.append(finding)
        return None


def _is_below_ampere(hardware: Iterable[Hardware]) -> bool:
    return any(device.compute_capability is not None and device.compute_capability < (8, 0) for device in hardware)


def _is_cpu_build() -> bool:
    import torch

    return torch.version.cuda is None and torch.version.hip is None


def _hardware_lines(hardware: Iterable[Hardware]) -> Iterator[str]:
    for device in hardware:
        units = {"nvidia": "SMs", "cpu": "cores"}.get(device.vendor, "compute units")
        facts = [
            f"{device.device}:{device.index}" if device.is_gpu else device.device,
            device.tensor_core_generation,
            device.compute_capability and "compute capability {}.{}".format(*device.compute_capability),
            f"{device.sm_count} {units}",
            device.shared_memory_per_block and f"{device.shared_memory_per_block >> 10} KiB of shared memory",
            device.l2_cache_bytes and f"{device.l2_cache_bytes >> 20} MiB of L2",
            *(name for name in ("tf32", "bf16", "tma") if getattr(device, name)),
        ]
        yield f"{device.name}: {', '.join(str(fact) for fact in facts if fact)}"


def _version_lines(environment: Environment) -> Iterator[str]:
    for package in environment.packages:
        wanted = f"  ({package.wanted})" if package.wanted else ""
        yield f"{package.name:<14}{package.version or 'not installed'}{wanted}"


def _backend_lines(backends: Iterable[OpBackend]) -> Iterator[str]:
    for (part, backend, reason), group in groupby(backends, key=lambda op: (op.part, op.backend, op.reason)):
        yield f"{backend or 'none'} for {part}: {', '.join(op.family for op in group)}"
        yield f"  because: {reason}"


def _finding_lines(findings: Iterable[Finding]) -> Iterator[str]:
    for finding in sorted(findings, key=lambda finding: not finding.broken):
        yield f"{'BROKEN' if finding.broken else 'note'}: {finding.what}"
        yield f"  {finding.todo}"
