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
from importlib import import_module
from types import CodeType
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

#: Plans that a function keeps; the oldest goes first.
MOST_PLANS = 1024

_PLAIN = frozenset((torch.Tensor, torch.nn.Parameter))
_ALLOCATE = {
    op
    for packet in (
        torch.ops.aten.empty,
        torch.ops.aten.empty_like,
        torch.ops.aten.empty_strided,
        torch.ops.aten.new_empty,
        torch.ops.aten.new_empty_strided,
    )
    for op in (getattr(packet, name) for name in packet.overloads())
}
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


class Varying(int):
    """A number that calls of one kind may differ in: it can be handed to a kernel, and nothing else."""

    place: int

    def _refuse(self, *_: Any) -> Any:
        raise TypeError("a number that calls of one kind differ in is handed on to a kernel as it is")

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __floordiv__ = __mod__ = __neg__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __ne__ = __bool__ = _refuse  # type: ignore[assignment]
    __hash__ = int.__hash__


def _plain(x: Any) -> Any:
    return int.__int__(x) if type(x) is Varying else x


class Unplannable(Exception):
    """A call decides by more than the kind of its arguments."""


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
        stand_ins = [torch.from_dlpack(x.detach()) if isinstance(x, torch.Tensor) else x for x in arguments]
        for place in self.varying:
            stand_ins[place] = Varying(arguments[place])
            stand_ins[place].place = place
        recorder = _Recorder(stand_ins)
        previous, _state.recorder = getattr(_state, "recorder", None), recorder
        try:
            with recorder:
                results = self.function(*stand_ins)
        finally:
            _state.recorder = previous
        try:
            self._plans[kind] = recorder.plan(results, self.function)
        except Unplannable:
            self._plans[kind] = self.function
        return results


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
    exec(_compiled(f"def kind_of({parameters}):\n return ({', '.join(parts)},)"), names)
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
        or torch.autograd._profiler_enabled()
    )


class _Step(NamedTuple):
    line: str
    reads: frozenset[int]
    """Places of the tensors that it needs."""
    makes: int | None = None
    """The place of what it allocates, where that is all that it does."""


class _Recorder(TorchDispatchMode):
    """What a call does, as lines of a function whose tensors are ``t0, t1, ...``, the arguments first."""

    def __init__(self, arguments: Sequence[Any]) -> None:
        super().__init__()
        self.count = len(arguments)
        self.tensors: list[Any] = list(arguments)
        self.names: dict[str, Any] = {}
        self.steps: list[_Step] = []
        self.pointers: set[int] = set()
        self.fault: str | None = None
        self.calls = False
        self.held: set[int] = set()
        self.places = {x.untyped_storage()._cdata: i for i, x in enumerate(arguments) if isinstance(x, torch.Tensor)}

    def __torch_dispatch__(
        self, op: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        results = op(*args, **(kwargs or {}))
        self._record(self._operator, op, args, kwargs or {}, results)
        return results

    def add_launch(
        self,
        kernel: Any,
        compiled: Any,
        grid: tuple[int, ...],
        operands: Sequence[Any],
        constants: dict[str, Any],
    ) -> None:
        """A launch that has been submitted; ``compiled`` is None where kernels are interpreted."""
        self._record(self._launch, kernel, compiled, grid, operands, constants)

    def _record(self, add: Callable[..., None], *what: Any) -> None:
        try:
            add(*what)
        except Unplannable as fault:
            self.fault = str(fault)

    def _operator(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], results: Any) -> None:
        made = [results] if isinstance(results, torch.Tensor) else results
        if not isinstance(made, (list, tuple)) or not all(isinstance(x, torch.Tensor) for x in made):
            raise Unplannable(f"{op} returns no tensors")
        fresh = [x for x in made if x.untyped_storage()._cdata not in self.places]
        if op in _ALLOCATE or (len(fresh) == 1 and not op._schema.is_mutable and not fresh[0].numel()):
            line = f"t{len(self.tensors)} = {self._allocation(made[0])}"
            self._add(line, set(), made, makes=len(self.tensors))
        elif fresh or op._schema.is_mutable:
            if len(fresh) not in (0, len(made)):
                raise Unplannable(f"{op} returns some tensors that it was given")
            reads: set[int] = set()
            inputs = [self._expression(x, reads) for x in args]
            inputs += [f"{name}={self._expression(x, reads)}" for name, x in kwargs.items()]
            targets = "".join(f"t{len(self.tensors) + i}, " for i in range(len(fresh)))
            targets = targets.removesuffix(", ") if isinstance(results, torch.Tensor) else targets
            self._add(f"{targets}{'= ' if fresh else ''}{self._constant(op)}({', '.join(inputs)})", reads, fresh)
            self.calls = True
        # What is left is a view.

    def _launch(
        self, kernel: Any, compiled: Any, grid: tuple[int, ...], operands: Sequence[Any], constants: dict[str, Any]
    ) -> None:
        reads: set[int] = set()
        if compiled is None:
            inputs = [self._expression(x, reads) for x in operands]
            inputs += [f"{name}={self._constant(value)}" for name, value in constants.items()]
            self._add(f"{self._constant(kernel[grid])}({', '.join(inputs)})", reads)
            return
        inputs = [self._pointer(x, reads) if isinstance(x, torch.Tensor) else self._constant(x) for x in operands]
        inputs += [self._constant(constants.get(p.name, p.default)) for p in kernel.params[len(operands) :]]
        what = (compiled.run, *(*grid, 1, 1)[:3], compiled.function, compiled.packed_metadata)
        run, x, y, z, function, packed = map(self._constant, what)
        # Behind the stream what CompiledKernel.run takes of Triton 3.3 to 3.9: metadata and two hooks for each launch.
        line = f"{run}({x}, {y}, {z}, stream, {function}, {packed}, None, None, None, {', '.join(inputs)})"
        self._add(line, reads)

    def hold(self, x: torch.Tensor) -> None:
        """A tensor that is the same in all calls of the kind."""
        if x.untyped_storage()._cdata not in self.places:
            self.names[f"t{len(self.tensors)}"] = x
            self.held.add(len(self.tensors))
            self.places[x.untyped_storage()._cdata] = len(self.tensors)
            self.tensors.append(x)

    def plan(self, results: Any, function: Callable[..., Any]) -> Callable[..., Any]:
        """What repeats what was recorded of a call of ``function``."""
        if self.fault:
            raise Unplannable(self.fault)
        kept: set[int] = set()
        returned = self._expression(results, kept)
        if any(place < self.count or place in self.held for place in kept):
            raise Unplannable("an argument is returned")
        lines, done = [], kept | self.held | set(range(self.count))
        for step in reversed(self.steps):
            if step.makes is not None and step.makes not in done:
                continue  # memory that nothing needs
            last = sorted(step.reads - done)
            done |= step.reads
            if last:
                lines.append(f"del {', '.join(f't{place}' for place in last)}")
            lines.append(step.line)
        parameters = ", ".join(f"t{i}" for i in range(self.count))
        head = [f"def run({parameters}):"]
        device = next(x.device for x in self.tensors if isinstance(x, torch.Tensor))
        index = self._constant(device.index)
        if device.type == "cuda":
            self.names["device_of"], self.names["elsewhere"] = torch._C._cuda_getDevice, _elsewhere
            head.append(f"if device_of() != {index}: return elsewhere({index}, run, {parameters})")
        if self.calls:
            self.names["is_autocast_enabled"], self.names["without_autocast"] = (
                torch.is_autocast_enabled,
                _without_autocast,
            )
            kind = self._constant(device.type)
            head.append(f"if is_autocast_enabled({kind}): return without_autocast({kind}, run, {parameters})")
        if self.pointers:
            self.names["is_hooked"] = _hooks()
            head.append(f"if is_hooked(): return {self._constant(function)}({parameters})")
            head.append(f"stream = stream_of({index})")
            self.names["stream_of"] = import_module("triton").runtime.driver.active.get_current_stream
        names = {**self.names}
        exec(_compiled("\n ".join([*head, *reversed(lines), f"return {returned}"])), names)
        return names["run"]  # type: ignore[no-any-return]

    def _add(self, line: str, reads: set[int], fresh: Sequence[torch.Tensor] = (), makes: int | None = None) -> None:
        self.steps.append(_Step(line, frozenset(reads), makes))
        for x in fresh:
            self.places[x.untyped_storage()._cdata] = len(self.tensors)
            self.tensors.append(x)

    def _allocation(self, x: torch.Tensor) -> str:
        """How to allocate memory like x."""
        # What compiled programs allocate with, in half the time; it fills nothing.
        empty = getattr(torch._C._dynamo.guards, f"_empty_strided_{x.device.type}", None)
        deterministic = torch.are_deterministic_algorithms_enabled()
        shape, stride, dtype = map(self._constant, (tuple(x.shape), x.stride(), x.dtype))
        if empty is None or deterministic:
            empty, device = self._constant(torch.empty_strided), self._constant(x.device)
            return f"{empty}({shape}, {stride}, dtype={dtype}, device={device})"
        return f"{self._constant(empty)}({shape}, {stride}, {dtype})"

    def _constant(self, value: Any) -> str:
        """A name for what is the same in all calls of the kind."""
        if value is None or value is True or value is False:
            return str(value)
        if type(value) is Varying:
            return f"t{value.place}"
        name = f"c{len(self.names)}"
        self.names[name] = value
        return name

    def _place(self, x: torch.Tensor, reads: set[int]) -> int:
        """Where the memory of x comes from."""
        place = self.places.get(x.untyped_storage()._cdata)
        if place is None:
            raise Unplannable(f"a tensor {list(x.shape)} comes from elsewhere")
        reads.add(place)
        return place

    def _expression(self, x: Any, reads: set[int]) -> str:
        """How to say an argument of an operator, or the results."""
        if isinstance(x, (list, tuple)) and any(isinstance(part, torch.Tensor) for part in x):
            inside = "".join(f"{self._expression(part, reads)}, " for part in x)
            return f"[{inside}]" if isinstance(x, list) else f"({inside})"
        if not isinstance(x, torch.Tensor):
            return self._constant(x)
        place = self._place(x, reads)
        whole = self.tensors[place]
        if x.dtype != whole.dtype:
            raise Unplannable("a tensor is read in another dtype")
        offset = x.storage_offset() - whole.storage_offset()
        if (x.shape, x.stride(), offset) == (whole.shape, whole.stride(), 0):
            return f"t{place}"
        shape, stride, offset = map(self._constant, (tuple(x.shape), x.stride(), offset))
        return f"t{place}.as_strided({shape}, {stride}, t{place}.storage_offset() + {offset})"

    def _pointer(self, x: torch.Tensor, reads: set[int]) -> str:
        place = self._place(x, reads)
        if place not in self.pointers:
            self.pointers.add(place)
            self.steps.append(_Step(f"p{place} = t{place}.data_ptr()", frozenset({place})))
        offset = x.data_ptr() - self.tensors[place].data_ptr() if x.numel() else 0
        return f"p{place} + {self._constant(offset)}" if offset else f"p{place}"


@cache
def _hooks() -> Callable[[], Any]:
    """What says whether somebody wants to be told of each launch by Triton, as its profiler does; plans tell nobody."""
    triton = import_module("triton")
    if not hasattr(triton, "knobs"):  # 3.3
        kernel = import_module("triton.compiler").CompiledKernel
        return lambda: kernel.launch_enter_hook or kernel.launch_exit_hook
    runtime = triton.knobs.runtime
    if not hasattr(runtime.launch_enter_hook, "calls"):  # 3.4
        return lambda: runtime.launch_enter_hook or runtime.launch_exit_hook
    enter, leave = runtime.launch_enter_hook, runtime.launch_exit_hook
    return lambda: enter.calls or leave.calls


@cache
def _compiled(source: str) -> CodeType:
    """Calls that differ in numbers alone have the same lines."""
    return compile(source, "<plan>", "exec")


def _elsewhere(index: int, run: Callable[..., Any], *arguments: Any) -> Any:
    """Kernels are launched on the GPU that is current."""
    with torch.cuda.device(index):
        return run(*arguments)


def _without_autocast(kind: str, run: Callable[..., Any], *arguments: Any) -> Any:
    with torch.autocast(kind, enabled=False):
        return run(*arguments)
