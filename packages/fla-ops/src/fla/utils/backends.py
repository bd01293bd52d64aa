"""Which implementation runs: the choice is by device, and an explicit choice never falls back.

Shared by the five wheels; not public: it may change in any release.
"""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from typing import NamedTuple

import torch

#: Every implementation an op can have, and what stands behind the name.
BACKENDS = {
    "triton": "Triton kernels",
    "torch": "the chunked algorithm in PyTorch matmuls",
    "reference": "the recurrence step by step",
}
GPU_DEVICE_TYPES = ("cuda", "xpu")


def _process_choice() -> str | None:
    choice = os.environ.get("FLA_BACKEND") or None
    if choice is not None and choice not in BACKENDS:
        raise ValueError(f"FLA_BACKEND: expected one of {', '.join(BACKENDS)}, got {choice!r}")
    return choice


def _process_debugs() -> bool:
    choice = os.environ.get("FLA_DEBUG") or "0"
    if choice not in ("0", "1"):
        raise ValueError(f"FLA_DEBUG: expected 0 or 1, got {choice!r}")
    return choice == "1"


PROCESS_BACKEND: str | None = _process_choice()
#: Whether arguments are checked where this waits for the device.
DEBUG: bool = _process_debugs()
HAS_TRITON: bool = find_spec("triton") is not None
INTERPRETED: bool = os.environ.get("TRITON_INTERPRET") == "1"

#: Devices whose tensors Triton kernels take. The interpreter and the dry-run driver add "cpu".
_TRITON_DEVICE_TYPES = {*GPU_DEVICE_TYPES, "cpu"} if INTERPRETED else set(GPU_DEVICE_TYPES)


class Choice(NamedTuple):
    """A backend and why it was chosen."""

    backend: str
    reason: str


def allow_triton_on_cpu() -> None:
    """Let ``backend="triton"`` take CPU tensors: for a driver that compiles launches and runs nothing."""
    _TRITON_DEVICE_TYPES.add("cpu")


def explain_backend(device_type: str, dtype: torch.dtype, backend: str | None = None) -> Choice:
    """The backend an op takes for a tensor of this kind, with the reason.

    Raises:
        ValueError: ``backend`` (or ``FLA_BACKEND``) names no backend, or one that cannot run here.
    """
    wanted = backend if backend is not None else PROCESS_BACKEND
    if wanted is None:
        return _automatic_choice(device_type, dtype)
    if wanted not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(BACKENDS)} or None, got {wanted!r}")
    if wanted == "triton":
        _check_triton_can_run(device_type, dtype)
    return Choice(wanted, "asked for" if backend is not None else "FLA_BACKEND")


def choose_backend(tensor: torch.Tensor, backend: str | None = None) -> str:
    """The backend for ``tensor``; see :func:`explain_backend`."""
    if backend is None and PROCESS_BACKEND is None:
        return _automatic_choice(tensor.device.type, tensor.dtype).backend
    return explain_backend(tensor.device.type, tensor.dtype, backend).backend


@cache
def _automatic_choice(device_type: str, dtype: torch.dtype) -> Choice:
    if device_type not in GPU_DEVICE_TYPES:
        return Choice("torch", f"tensors on {device_type}")
    if not HAS_TRITON:
        return Choice("torch", "Triton is not installed (pip install 'fla-ops[triton]')")
    if dtype == torch.float64:
        return Choice("torch", "Triton kernels do not take float64")
    return Choice("triton", f"tensors on {device_type}")


def _check_triton_can_run(device_type: str, dtype: torch.dtype) -> None:
    if not HAS_TRITON:
        raise ValueError("backend='triton': Triton is not installed (pip install 'fla-ops[triton]')")
    if device_type not in _TRITON_DEVICE_TYPES:
        raise ValueError(
            f"backend='triton': expected tensors on {' or '.join(sorted(_TRITON_DEVICE_TYPES))}, got {device_type}; "
            "leave backend=None to let the device decide"
        )
    if dtype == torch.float64:
        raise ValueError("backend='triton': expected float32, bfloat16 or float16, got torch.float64")
