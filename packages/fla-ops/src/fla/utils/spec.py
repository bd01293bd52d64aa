"""A family's description of itself: one list of cases, read by the conformance tests, the benchmarks and the docs.

Shared by the five wheels; not public: it may change in any release.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import Any

import torch

Results = Sequence[torch.Tensor]
Sizes = Mapping[str, int]
Made = tuple[Callable[..., Results], list[torch.Tensor]]


@dataclass(frozen=True)
class Case:
    """One legal call.

    ``make(device, dtype)`` returns ``(fn, inputs)``: ``fn(*inputs, backend=...)`` gives the tensors to compare, and
    the inputs that require grad are those whose gradients are compared.
    """

    name: str
    make: Callable[[torch.device | str, torch.dtype], Made]
    tags: frozenset[str] = frozenset()
    """``"tiny"`` for the interpreter, ``"large"`` for a GPU only, ``"cancels"`` where sums cancel in the gradients."""


@dataclass(frozen=True)
class SequenceOp:
    """A public function over sequences, in the form in which properties that all of them share are tested.

    ``make(sizes, generator, dtype)`` returns its tensors ``[B, T, ...]`` by argument name, drawn on the generator's
    device. The function takes ``initial_state``, ``output_final_state``, ``cu_seqlens`` and ``backend`` and returns
    ``(o, final_state)``; a state is a tensor or nested tuples of tensors.
    """

    function: Callable[..., Any]
    make: Callable[[Sizes, torch.Generator, torch.dtype], dict[str, torch.Tensor]]

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.__name__


@dataclass(frozen=True)
class Cost:
    """The least a call can move and compute: bytes through device memory, floating-point operations."""

    bytes_fwd: float
    bytes_bwd: float
    flops_fwd: float
    flops_bwd: float


@dataclass(frozen=True)
class Spec:
    """A family: its public functions, the backend that holds the truth, and what it supports."""

    name: str
    paper: str
    functions: tuple[str, ...]
    backends: tuple[str, ...]
    cases: tuple[Case, ...]
    cost: Callable[[Sizes, int], Cost]
    """From the size of each dimension letter and the bytes of an element."""
    sequence_ops: tuple[SequenceOp, ...] = ()
    truth: str = "reference"
    features: frozenset[str] = field(default_factory=frozenset)
    """Of ``state``, ``packed``, ``compile``, ``backward``."""
    timed_sizes: Sizes = field(default_factory=dict)
    """Sizes in which it is timed, where they are not those of most families."""


def specs(part: str) -> Iterator[Spec]:
    """The spec of every family of a part, such as ``"fla.ops"``, that has one."""
    for family in iter_modules(import_module(part).__path__, f"{part}."):
        if family.ispkg and find_spec(f"{family.name}.spec") is not None:
            yield import_module(f"{family.name}.spec").SPEC


def seeded(name: str) -> torch.Generator:
    """A CPU generator that depends on ``name`` alone, so that every backend and device sees the same numbers."""
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))
