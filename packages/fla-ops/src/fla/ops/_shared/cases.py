"""Random calls of ops over sequences: what a ``spec.py`` makes its cases of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F

from fla.utils.spec import Case, Made, Results, Sizes, seeded

#: Tensor argument -> the letters of its dimensions, and a mark of what it is if not normal: ``-`` the log of a sigmoid,
#: ``+`` a sigmoid, ``|`` unit vectors, ``!`` normal around one, and of normal x ``~`` elu(x) + 1, ``>`` relu(x) + 1/16,
#: ``^`` exp(x). For example ``{"g": "B T H K -"}``.
Operands = Mapping[str, str]
_MARKS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "-": F.logsigmoid,
    "+": torch.sigmoid,
    "|": partial(F.normalize, dim=-1),
    "!": lambda x: x + 1,
    "~": lambda x: F.elu(x) + 1,
    # Features that are all 0 would be divided by nothing.
    ">": lambda x: F.relu(x) + 1 / 16,
    "^": torch.exp,
}


@dataclass(frozen=True)
class Shape:
    """One call: sizes, lengths of packed sequences if any, the strength of the decay, and options of the function."""

    B: int
    T: int
    H: int
    K: int
    V: int
    lengths: tuple[int, ...] = ()
    decay: float = 1 / 16
    HV: int = 0
    """Value heads; as many as H unless given."""
    M: int = 16
    """Slots, or sub-steps of a token."""
    without: tuple[str, ...] = ()
    """Operands that are left out."""
    options: Mapping[str, Any] = field(default_factory=dict)

    def sizes(self) -> dict[str, int]:
        """The size of each letter."""
        sizes = {"B": self.B, "T": self.T, "H": self.H, "K": self.K, "V": self.V, "M": self.M}
        return sizes | {"HV": self.HV or self.H, "N": len(self.lengths) or self.B}

    def tags(self) -> frozenset[str]:
        """``"tiny"`` for the interpreter, ``"large"`` for a GPU only."""
        work = self.B * self.T * (self.HV or self.H) * self.K * self.V
        return frozenset({"tiny"} if work <= 90 * 1200 else {"large"} if work > 1 << 24 else ())


def draw(
    operands: Operands, sizes: Sizes, generator: torch.Generator, dtype: torch.dtype, decay: float = 1.0
) -> dict[str, torch.Tensor]:
    """A tensor for each operand, on the generator's device; log decays are multiplied by ``decay``."""
    drawn = {}
    for name, letters in operands.items():
        *dims, mark = letters.split() if letters[-1] in _MARKS else (*letters.split(), "")
        x = torch.randn([sizes[dim] for dim in dims], generator=generator, dtype=dtype, device=generator.device)
        x = _MARKS[mark](x) if mark else x
        drawn[name] = x * decay if mark == "-" else x
    return drawn


def sequence_cases(function: Callable[..., Any], operands: Operands, shapes: Mapping[str, Shape]) -> Iterator[Case]:
    """A case of each shape.

    Args:
        function: takes ``operands`` by name, and returns a tensor or nested tuples of tensors. Where ``operands``
            names an ``initial_state``, it is asked for the final one too.
        operands: with the state's letters as they are where ``state_v_first`` is not among the shape's options.
        shapes: title -> shape.
    """
    cancels = {"cancels"} if any(letters.endswith("!") for letters in operands.values()) else set()
    for title, shape in shapes.items():
        name = f"{function.__name__}: {title}"
        yield Case(name, partial(make, name, shape, function, operands), shape.tags() | cancels)


def make(
    name: str,
    shape: Shape,
    function: Callable[..., Any],
    operands: Operands,
    device: torch.device | str,
    dtype: torch.dtype,
) -> Made:
    """Random inputs for ``shape``, every one of them a leaf, and the call that takes them."""
    names = {n: letters for n, letters in operands.items() if n not in shape.without}
    drawn = draw(names, shape.sizes(), seeded(name), torch.float64, shape.decay)
    options: dict[str, Any] = dict(shape.options)
    if "initial_state" in drawn:
        options["output_final_state"] = True
        if options.get("state_v_first"):
            drawn["initial_state"] = drawn["initial_state"].transpose(-1, -2).contiguous()
    if shape.lengths:
        options["cu_seqlens"] = torch.tensor([0, *accumulate(shape.lengths)], device=device, dtype=torch.int32)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    leaves = [
        x.to(device=device, dtype=wide if n == "initial_state" else dtype).requires_grad_() for n, x in drawn.items()
    ]

    def call(*tensors: torch.Tensor, backend: str | None = None) -> Results:
        return list(flatten(function(**dict(zip(drawn, tensors)), **options, backend=backend)))

    return call, leaves


def flatten(results: Any) -> Iterator[torch.Tensor]:
    """The tensors of nested tuples, None left out."""
    if isinstance(results, torch.Tensor):
        yield results
    elif results is not None:
        for result in results:
            yield from flatten(result)


def launch(title: str, shape: Shape, function: Callable[..., Any], operands: Operands, dtype: torch.dtype) -> None:
    """Forward and backward by the Triton kernels: what is compiled ahead of time."""
    call, leaves = make(title, shape, function, operands, "cpu", dtype)
    results = call(*leaves, backend="triton")
    torch.autograd.grad(results, leaves, [torch.zeros_like(result) for result in results])
