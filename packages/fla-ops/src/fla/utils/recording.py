"""What a call does to tensors, recorded as lines of Python that do it again.

Shared by the five wheels; not public: it may change in any release.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache
from importlib import import_module
from types import CodeType
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

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


class Varying(int):
    """A number that calls of one kind may differ in: it can be handed to a kernel, and nothing else."""

    place: int

    def _refuse(self, *_: Any) -> Any:
        raise TypeError("a number that calls of one kind differ in is handed on to a kernel as it is")

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __floordiv__ = __mod__ = __neg__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __ne__ = __bool__ = _refuse
    __hash__ = int.__hash__


class Unplannable(Exception):
    """A call decides by more than the kind of its arguments."""


class _Step(NamedTuple):
    line: str
    reads: frozenset[int]
    """Places of the tensors that it needs."""
    makes: int | None = None
    """The place of what it allocates, where that is all that it does."""


class Recorder(TorchDispatchMode):
    """What a call does, as lines of a function whose tensors are ``t0, t1, ...``, the arguments first."""

    def __init__(self, arguments: Sequence[Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = len(arguments)
        self.tensors: list[Any] = list(arguments)
        self.names: dict[str, Any] = {}
        """What the lines call constants and functions."""
        self.steps: list[_Step] = []
        self.pointers: set[int] = set()
        """Places of tensors whose address has a name, ``p0`` and so on."""
        self.held: set[int] = set()
        self.calls = False
        """Whether operators are called."""
        self.fault: str | None = None
        #: Where each memory comes from.
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
            inputs += [f"{name}={self._expression(value, reads)}" for name, value in constants.items()]
            self._add(f"{self._constant(kernel[grid])}({', '.join(inputs)})", reads)
            return
        rest = [constants.get(p.name, p.default) for p in kernel.params[len(operands) :]]
        inputs = [
            self._pointer(x, reads) if isinstance(x, torch.Tensor) else self._constant(x) for x in (*operands, *rest)
        ]
        what = (compiled.run, *(*grid, 1, 1)[:3], compiled.function, compiled.packed_metadata)
        run, x, y, z, function, packed = map(self._constant, what)
        # Behind the stream what CompiledKernel.run takes of Triton 3.3 to 3.9: metadata and two hooks for each launch.
        line = f"{run}({x}, {y}, {z}, stream, {function}, {packed}, None, None, None, {', '.join(inputs)})"
        self._add(line, reads)

    def hold(self, x: torch.Tensor) -> None:
        """Note a tensor that is the same in all calls of the kind."""
        if x.untyped_storage()._cdata not in self.places:
            self.names[f"t{len(self.tensors)}"] = x
            self.held.add(len(self.tensors))
            self.places[x.untyped_storage()._cdata] = len(self.tensors)
            self.tensors.append(x)

    def plan(self, results: Any, function: Callable[..., Any]) -> Callable[..., Any]:
        """What repeats what was recorded of a call of ``function``.

        Raises:
            Unplannable: the call did what cannot be repeated.
        """
        if self.fault:
            raise Unplannable(self.fault)
        needed: set[int] = set()
        returned = self._expression(results, needed)
        if any(place < self.count or place in self.held for place in needed):
            raise Unplannable("an argument is returned")
        parameters = ", ".join(f"t{i}" for i in range(self.count))
        lines = [
            f"def run({parameters}):",
            *self._head(function, parameters),
            *self._body(needed),
            f"return {returned}",
        ]
        exec(compiled_lines("\n ".join(lines)), self.names)
        return self.names["run"]  # type: ignore[no-any-return]

    def _head(self, function: Callable[..., Any], parameters: str) -> Iterator[str]:
        """What must hold before the first step: the current device, no autocast, nobody who is told of launches."""
        device = next(x.device for x in self.tensors if isinstance(x, torch.Tensor))
        if device.type == "cuda":
            self.names.update(device_of=torch._C._cuda_getDevice, elsewhere=_elsewhere)
            yield f"if device_of() != {device.index}: return elsewhere({device.index}, run, {parameters})"
        if self.calls:
            self.names.update(is_autocast_enabled=torch.is_autocast_enabled, without_autocast=_without_autocast)
            kind = self._constant(device.type)
            yield f"if is_autocast_enabled({kind}): return without_autocast({kind}, run, {parameters})"
        if self.pointers:
            self.names.update(
                is_hooked=hooks(), stream_of=import_module("triton").runtime.driver.active.get_current_stream
            )
            yield f"if is_hooked(): return {self._constant(function)}({parameters})"
            yield f"stream = stream_of({device.index})"

    def _body(self, needed: set[int]) -> list[str]:
        """The steps, and what each is the last to read; memory that nothing needs is not allocated."""
        lines, done = [], needed | self.held | set(range(self.count))
        for step in reversed(self.steps):
            if step.makes is not None and step.makes not in done:
                continue
            last = sorted(step.reads - done)
            done |= step.reads
            if last:
                lines.append(f"del {', '.join(f't{place}' for place in last)}")
            lines.append(step.line)
        return lines[::-1]

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
def hooks() -> Callable[[], Any]:
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


@lru_cache(maxsize=4096)
def compiled_lines(source: str) -> CodeType:
    """The code of a function; calls that differ in numbers alone have the same."""
    return compile(source, "<plan>", "exec")


def _elsewhere(index: int, run: Callable[..., Any], *arguments: Any) -> Any:
    """Kernels are launched on the GPU that is current."""
    with torch.cuda.device(index):
        return run(*arguments)


def _without_autocast(kind: str, run: Callable[..., Any], *arguments: Any) -> Any:
    with torch.autocast(kind, enabled=False):
        return run(*arguments)
