"""Plans: what a call does on the host, recorded at the first of its kind and repeated at little cost.

Shared by the five wheels; not public: it may change in any release.

Calls are of one kind where their tensors agree in shape, strides, dtype, device and alignment, and all else that they
are given is equal. The first of a kind runs as it is written, on tensors that stand for the arguments, and is recorded:
memory that is allocated, operators of PyTorch, kernels that :func:`launch` submits. What is recorded becomes a function
of straight lines that allocates, launches compiled kernels with integer pointers, and returns.

So a function that is planned decides by nothing but the kind of its arguments: it reads no values of tensors, and has
no effect but on tensors. What it allocates is freed after the step that reads it last.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.dlpack import from_dlpack

from fla.utils.recording import Recorder, Unplannable, Varying, compiled_lines

#: Plans that a function keeps; the oldest goes first.
MOST_PLANS = 1024

_PLAIN = frozenset((torch.Tensor, torch.nn.Parameter))
_state = threading.local()


def launch(kernel: Any, grid: tuple[int, ...], *operands: Any, **constants: Any) -> None:
    """Launch a Triton kernel, as ``kernel[grid](*operands, **constants)`` does."""
    recorder = getattr(_state, "recorder", None)
    if recorder is None:
        kernel[grid](*operands, **constants)
        return
    with _disable_current_modes():  # an interpreted kernel computes with operators of PyTorch
        compiled = kernel[grid](*map(_plain, operands), **constants)
    recorder.add_launch(kernel, compiled, grid, operands, constants)


def keep(make: Callable[[], torch.Tensor | None]) -> torch.Tensor | None:
    """What ``make`` returns, as something that is there before a call and after it: a plan holds it.

    None is for the time being: it is made by each call.
    """
    recorder = getattr(_state, "recorder", None)
    if recorder is None:
        return make()
    with _disable_current_modes():
        tensor = make()
    if tensor is not None:
        recorder.hold(tensor)
    return tensor


def _plain(x: Any) -> Any:
    return int.__int__(x) if type(x) is Varying else x


class Planned:
    """A function of tensors and options that is planned.

    Args:
        function: what is called.
        count: how many arguments it has.
        tensors: the places of those that may be tensors.
        varying: the places of integers that are handed to kernels alone, which are not specialised to them.
    """

    def __init__(
        self, function: Callable[..., Any], count: int, tensors: Sequence[int], varying: Sequence[int] = ()
    ) -> None:
        self.function, self.varying = function, tuple(varying)
        self.kind_of = kind_function(count, tuple(tensors), self.varying)
        self._plans: dict[Hashable, Callable[..., Any]] = {}

    def __call__(self, otherwise: Callable[..., Any], *arguments: Any) -> Any:
        """Call it; ``otherwise`` where a tensor is more than memory."""
        try:
            kind = self.kind_of(*arguments)
        except MoreThanMemory:
            return otherwise(*arguments)
        plan = self._plans.get(kind)
        if plan is None:
            if any(isinstance(x, torch.Tensor) and x.is_meta for x in arguments):
                return otherwise(*arguments)
            return self._first(kind, arguments)
        return plan(*arguments)

    def _first(self, kind: Hashable, arguments: Sequence[Any]) -> Any:
        """Run a call, and keep the plan; what cannot be planned runs as it is written each time."""
        while len(self._plans) >= MOST_PLANS:
            self._plans.pop(next(iter(self._plans)), None)
        recorder = Recorder([self._stand_in(place, x) for place, x in enumerate(arguments)])
        previous, _state.recorder = getattr(_state, "recorder", None), recorder
        try:
            with recorder:
                results = self.function(*recorder.tensors)
        finally:
            _state.recorder = previous
        try:
            self._plans[kind] = recorder.plan(results, self.function)
        except Unplannable:
            self._plans[kind] = self.function
        return results

    def _stand_in(self, place: int, x: Any) -> Any:
        """An argument that is like no other: arguments may share memory in this call and not in the next."""
        if isinstance(x, torch.Tensor):
            return from_dlpack(x.detach())
        if place not in self.varying:
            return x
        number = Varying(x)
        number.place = place
        return number


@cache
def kind_function(count: int, tensors: tuple[int, ...], varying: tuple[int, ...]) -> Callable[..., Hashable]:
    """A function that returns the kind of its arguments, in straight lines like a plan.

    It raises MoreThanMemory where a tensor is fake, wrapped or of a subclass.
    """
    memory = "(t{0}.shape, t{0}.is_contiguous() or t{0}.stride(), t{0}.dtype, t{0}.device, t{0}.data_ptr() & 15)"
    parts = [
        "None"
        if i in varying
        else f"{memory.format(i)} if type(t{i}) in PLAIN else other(t{i})"
        if i in tensors
        else f"t{i}"
        for i in range(count)
    ]
    names: dict[str, Any] = {"PLAIN": _PLAIN, "other": _other_kind}
    parameters = ", ".join(f"t{i}" for i in range(count))
    exec(compiled_lines(f"def kind_of({parameters}):\n return ({', '.join(parts)},)"), names)
    return names["kind_of"]  # type: ignore[no-any-return]


def _other_kind(x: Any) -> Hashable:
    if isinstance(x, torch.Tensor):
        raise MoreThanMemory
    return x  # type: ignore[no-any-return]


class MoreThanMemory(Exception):
    """A tensor that is not read by its pointer alone."""


def is_recording() -> bool:
    """Whether a call is being recorded; what it calls belongs to its plan."""
    return getattr(_state, "recorder", None) is not None


def is_watched() -> bool:
    """Whether somebody sees the operators that are called: a mode, a transform or a profiler."""
    return bool(
        torch._C._len_torch_dispatch_stack()
        or torch._C._are_functorch_transforms_active()
        or torch._C._autograd._profiler_enabled()
    )
