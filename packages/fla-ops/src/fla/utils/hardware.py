"""What the machine computes with: one frozen record per device, probed when first asked for and never at import.

The names in capitals, ``device`` and :func:`check_shared_mem` answer for the current device under the names that
users of flash-linear-attention know.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

#: Smallest shared memory per block, in bytes, that :func:`check_shared_mem` asks for under each name.
SHARED_MEMORY_OF = {"none": 102400, "ada": 101376, "ampere": 166912, "hopper": 232448, "blackwell": 232448}

_NVIDIA_GENERATIONS = {7: "volta", 8: "ampere", 9: "hopper", 10: "blackwell", 11: "blackwell", 12: "blackwell"}
_NVIDIA_MINOR_GENERATIONS = {(7, 5): "turing", (8, 9): "ada"}
_AMD_GENERATIONS = {
    "gfx908": "cdna1",
    "gfx90a": "cdna2",
    "gfx94": "cdna3",
    "gfx95": "cdna4",
    "gfx11": "rdna3",
    "gfx12": "rdna4",
}


@dataclass(frozen=True)
class Hardware:
    """One device. Sizes are in bytes, and 0 where the device does not tell."""

    device: str
    """PyTorch's device type: ``cuda`` (AMD's too), ``xpu``, ``mps`` or ``cpu``."""
    index: int
    vendor: str
    """``nvidia``, ``amd``, ``intel``, ``apple`` or ``cpu``."""
    name: str
    compute_capability: tuple[int, int] | None
    """Major and minor number; NVIDIA's alone."""
    sm_count: int
    """Streaming multiprocessors, or what is most like them: compute units, Xe cores, CPU cores."""
    shared_memory_per_block: int
    """The most that a kernel can opt in to."""
    l2_cache_bytes: int
    tf32: bool
    """Matrix units multiply TF32."""
    bf16: bool
    """Bfloat16 is computed in hardware."""
    tma: bool
    """It has NVIDIA's tensor memory accelerator."""
    tensor_core_generation: str | None
    """``volta`` to ``blackwell``, ``cdna1`` to ``cdna4``, ``rdna3``, ``rdna4``, ``xmx``; None without matrix units."""

    @property
    def is_gpu(self) -> bool:
        """Whether it is anything but a CPU."""
        return self.device != "cpu"


def best_device() -> str:
    """The device type to compute on: ``cuda``, ``xpu``, ``mps`` or ``cpu``. Sets nothing up on a GPU."""
    import torch

    if torch.cuda.device_count() > 0:
        return "cuda"
    if torch.xpu.device_count() > 0:
        return "xpu"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def hardware(index: int | None = None) -> Hardware:
    """What is known about a device of the best type that the machine has.

    The device is probed once in the life of a process; a forked child that asks again gets its parent's answer.

    Args:
        index: of the device, the current one unless given.

    Raises:
        ValueError: there is no device with that index.
    """
    device = best_device()
    if index is None:
        index = _current_index(device)
    elif not 0 <= index < _device_count(device):
        raise ValueError(f"index: expected 0 to {_device_count(device) - 1} ({device} devices), got {index}")
    return _probe(device, index)


def every_device() -> tuple[Hardware, ...]:
    """The records of all devices of the best type."""
    device = best_device()
    return tuple(_probe(device, index) for index in range(_device_count(device)))


def check_shared_mem(arch: str = "none", tensor_idx: int = 0) -> bool:
    """Whether a device has at least the shared memory per block of an architecture.

    Args:
        arch: ``"none"`` (100 KiB), ``"ada"``, ``"ampere"``, ``"hopper"`` or ``"blackwell"``.
        tensor_idx: index of the device.

    Raises:
        ValueError: an unknown architecture, or no such device.
    """
    if arch not in SHARED_MEMORY_OF:
        raise ValueError(f"arch: expected one of {', '.join(SHARED_MEMORY_OF)}, got {arch!r}")
    return hardware(tensor_idx).shared_memory_per_block >= SHARED_MEMORY_OF[arch]


@cache
def _probe(device: str, index: int) -> Hardware:
    import torch

    if device == "cuda":
        describe = describe_amd if torch.version.hip else describe_nvidia
        return describe(torch.cuda.get_device_properties(index), index)
    if device == "xpu":
        return describe_intel(torch.xpu.get_device_properties(index), index)
    return _describe_apple() if device == "mps" else _describe_cpu()


def _device_count(device: str) -> int:
    import torch

    return getattr(torch, device).device_count() if device in ("cuda", "xpu") else 1


def _current_index(device: str) -> int:
    """0 until the device runtime is up, so that asking does not start it, nor fail in a forked child."""
    import torch

    runtime = getattr(torch, device)
    started = device in ("cuda", "xpu") and runtime.is_initialized()
    return int(runtime.current_device()) if started else 0


def describe_nvidia(properties: Any, index: int = 0) -> Hardware:
    """The record of an NVIDIA GPU, from what ``torch.cuda.get_device_properties`` returns."""
    capability = (int(properties.major), int(properties.minor))
    generation = _NVIDIA_MINOR_GENERATIONS.get(capability, _NVIDIA_GENERATIONS.get(capability[0]))
    block = int(properties.shared_memory_per_block)
    return Hardware(
        device="cuda",
        index=index,
        vendor="nvidia",
        name=properties.name,
        compute_capability=capability,
        sm_count=int(properties.multi_processor_count),
        shared_memory_per_block=int(getattr(properties, "shared_memory_per_block_optin", block)),
        l2_cache_bytes=int(properties.L2_cache_size),
        tf32=capability >= (8, 0),
        bf16=capability >= (8, 0),
        tma=capability >= (9, 0),
        tensor_core_generation=generation,
    )


def describe_amd(properties: Any, index: int = 0) -> Hardware:
    """The record of an AMD GPU, from what ``torch.cuda.get_device_properties`` returns."""
    arch = str(properties.gcnArchName).split(":")[0]
    generation = next((name for prefix, name in _AMD_GENERATIONS.items() if arch.startswith(prefix)), None)
    return Hardware(
        device="cuda",
        index=index,
        vendor="amd",
        name=f"{properties.name} ({arch})",
        compute_capability=None,
        sm_count=int(properties.multi_processor_count),
        shared_memory_per_block=int(properties.shared_memory_per_block),
        l2_cache_bytes=int(properties.L2_cache_size),
        tf32=generation == "cdna3",
        bf16=generation is not None,
        tma=False,
        tensor_core_generation=generation,
    )


def describe_intel(properties: Any, index: int = 0) -> Hardware:
    """The record of an Intel GPU, from what ``torch.xpu.get_device_properties`` returns."""
    matrix_units = bool(getattr(properties, "has_subgroup_matrix_multiply_accumulate", False))
    return Hardware(
        device="xpu",
        index=index,
        vendor="intel",
        name=properties.name,
        compute_capability=None,
        sm_count=int(properties.gpu_subslice_count),
        shared_memory_per_block=int(getattr(properties, "local_mem_size", 0)),
        l2_cache_bytes=int(getattr(properties, "last_level_cache_size", 0)),
        tf32=bool(getattr(properties, "has_subgroup_matrix_multiply_accumulate_tensor_float32", False)),
        bf16=matrix_units,
        tma=False,
        tensor_core_generation="xmx" if matrix_units else None,
    )


def _describe_apple() -> Hardware:
    import torch

    mps = torch.backends.mps
    return Hardware(
        device="mps",
        index=0,
        vendor="apple",
        name=mps.get_name() if hasattr(mps, "get_name") else platform.machine(),  # PyTorch 2.8 tells
        compute_capability=None,
        sm_count=mps.get_core_count() if hasattr(mps, "get_core_count") else 0,
        shared_memory_per_block=32768,  # the same on every Apple GPU
        l2_cache_bytes=0,
        tf32=False,
        bf16=mps.is_macos_or_newer(14, 0),
        tma=False,
        tensor_core_generation=None,
    )


def _describe_cpu() -> Hardware:
    import torch

    has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)
    return Hardware(
        device="cpu",
        index=0,
        vendor="cpu",
        name=_cpu_name(),
        compute_capability=None,
        sm_count=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        shared_memory_per_block=0,
        l2_cache_bytes=0,
        tf32=False,
        bf16=bool(has_bf16()),
        tma=False,
        tensor_core_generation=None,
    )


def _cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


_FACTS: dict[str, Callable[[], str | bool]] = {
    "device": best_device,
    "IS_NVIDIA": lambda: hardware().vendor == "nvidia",
    "IS_AMD": lambda: hardware().vendor == "amd",
    "IS_INTEL": lambda: hardware().vendor == "intel",
    "IS_NVIDIA_HOPPER": lambda: hardware().tensor_core_generation == "hopper",
    "IS_NVIDIA_BLACKWELL": lambda: hardware().tensor_core_generation == "blackwell",
    "IS_TF32_SUPPORTED": lambda: hardware().tf32,
    "IS_TMA_SUPPORTED": lambda: hardware().tma,
}

if TYPE_CHECKING:
    device: str
    IS_NVIDIA: bool
    IS_AMD: bool
    IS_INTEL: bool
    IS_NVIDIA_HOPPER: bool
    IS_NVIDIA_BLACKWELL: bool
    IS_TF32_SUPPORTED: bool
    IS_TMA_SUPPORTED: bool
else:

    def __getattr__(name: str) -> str | bool:
        if name not in _FACTS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
        return _FACTS[name]()
