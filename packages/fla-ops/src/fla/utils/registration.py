"""How an op becomes known to PyTorch: one opaque node for torch.compile, at the least host cost.

Shared by the five wheels; not public: it may change in any release.

An op is a ``torch.library`` definition with a fake, called inside an ``autograd.Function`` whose
forward takes ``ctx``. docs/decisions/0001-op-registration.md has the measurement behind this.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

_LIBRARY = torch.library.Library("fla", "FRAGMENT")


def register_op(
    name: str, schema: str, implementation: Callable[..., Any], fake: Callable[..., Any]
) -> Callable[..., Any]:
    """Define ``fla::<name>`` and return the callable to use for it.

    Args:
        name: op name, ``<family>_<form>_fwd`` or ``..._bwd``.
        schema: argument and result list, such as ``"(Tensor q, float scale) -> (Tensor, Tensor)"``.
        implementation: what runs, on every device; autograd and autocast are off inside, and the current GPU is the
            one that the tensors lie on: kernels are launched there.
        fake: the same signature, returning empty tensors of the right shape, dtype and device.
    """
    _LIBRARY.define(f"{name}{schema}", tags=(torch.Tag.pt2_compliant_tag,))
    op = getattr(torch.ops.fla, name).default
    names = [argument.name for argument in op._schema.arguments]
    run = _in_its_place(implementation)
    if "cu_seqlens" in names:
        run = _with_contiguous(run, names.index("cu_seqlens"))
    _LIBRARY.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"fla::{name}", fake, lib=_LIBRARY)
    return op  # type: ignore[no-any-return]


def _with_contiguous(implementation: Callable[..., Any], place: int) -> Callable[..., Any]:
    """Kernels read boundaries one after the other."""

    @wraps(implementation)
    def run(*args: Any) -> Any:
        tensor = args[place]
        if tensor is not None and not tensor.is_contiguous():
            args = (*args[:place], tensor.contiguous(), *args[place + 1 :])
        return implementation(*args)

    return run


def _in_its_place(implementation: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(implementation)
    def run(*args: Any) -> Any:
        device = next(a.device for a in args if isinstance(a, torch.Tensor))
        if device.type == "cuda" and device.index != torch._C._cuda_getDevice():
            with torch.cuda.device(device):
                return run(*args)
        if not torch.is_autocast_enabled(device.type):
            return implementation(*args)
        with torch.autocast(device.type, enabled=False):
            return implementation(*args)

    return run
