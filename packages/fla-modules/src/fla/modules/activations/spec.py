"""Cases that the gated linear units must get right, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch

from fla.modules.activations.api import powglu, sigmoidglu, swiglu, swiglu_linear
from fla.utils.spec import Case, Cost, Made, Results, Spec, seeded


class Shape(NamedTuple):
    """One call: the shape of x and y, and the channels of the linear map where there is one."""

    size: tuple[int, ...]
    out: int = 0
    bias: bool = False
    halves: bool = False
    """x and y are the halves of one tensor."""


SHAPES = {
    "scalar": Shape(()),
    # So many: near its zero the gradient of one may be wrong by many times the rounding of its terms.
    "one dimension": Shape((9,)),
    "odd": Shape((3, 5, 7)),
    "halves of a projection": Shape((2, 9, 40), halves=True),
    "transposed": Shape((33, 1)),
    "width 1000": Shape((70, 1000)),
    "width 8192": Shape((2, 30, 8192)),
    "train": Shape((8, 4096, 8192)),
}
LINEAR_SHAPES = {
    "one row": Shape((1, 8), 4),
    "bias": Shape((2, 5, 17), 9, bias=True),
    "halves of a projection": Shape((2, 9, 40), 16, halves=True),
    "width 2048": Shape((2, 30, 2048), 512, bias=True),
    "train": Shape((8, 4096, 8192), 2048),
}


def _make(
    name: str, shape: Shape, function: Callable[..., torch.Tensor], device: torch.device | str, dtype: torch.dtype
) -> Made:
    generator = seeded(name)

    def draw(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64).to(device, dtype).requires_grad_()

    if shape.halves:
        leaves = [draw(*shape.size[:-1], 2 * shape.size[-1])]
    else:
        leaves = [draw(*shape.size), draw(*shape.size)]
    if shape.out:
        leaves.append(draw(shape.out, shape.size[-1]))
    if shape.bias:
        leaves.append(draw(shape.out))

    def call(*tensors: torch.Tensor, backend: str | None = None) -> Results:
        x_and_y = tensors[0].chunk(2, -1) if shape.halves else tensors[:2]
        return (function(*x_and_y, *tensors[1 if shape.halves else 2 :], backend=backend),)

    return call, leaves


def _cases() -> Iterator[Case]:
    functions: tuple[tuple[Callable[..., Any], dict[str, Shape]], ...] = (
        (swiglu, SHAPES),
        (sigmoidglu, SHAPES),
        (powglu, SHAPES),
        (swiglu_linear, LINEAR_SHAPES),
    )
    for function, shapes in functions:
        for title, shape in shapes.items():
            name = f"{function.__name__}: {title}"
            elements = torch.Size(shape.size).numel()
            tags = {"tiny"} if elements <= 3000 else {"large"} if elements > 1 << 20 else set()
            yield Case(name, partial(_make, name, shape, function), frozenset(tags))


def cost(sizes: Mapping[str, int], element: int) -> Cost:
    """Of a gated linear unit alone: x and y read, z written; then x, y, dz read, dx, dy written."""
    stream = sizes["N"] * sizes["D"] * element
    return Cost(bytes_fwd=3 * stream, bytes_bwd=5 * stream, flops_fwd=0, flops_bwd=0)


SPEC = Spec(
    name="activations",
    paper="2002.05202",
    functions=("swiglu", "sigmoidglu", "powglu", "swiglu_linear"),
    backends=("triton", "torch"),
    cases=tuple(_cases()),
    cost=cost,
    truth="torch",
    features=frozenset({"compile", "backward"}),
)


def aot_cases() -> Iterator[tuple[str, Callable[[], None]]]:
    """One call of every kernel for each tile that ships, to be compiled without a GPU."""
    for dtype in (torch.bfloat16, torch.float32):
        for function in (swiglu, sigmoidglu, powglu, swiglu_linear):
            for dim in (1000, 8192) if function is swiglu else (1000,):
                shape = Shape((4, dim), 16 if function is swiglu_linear else 0)
                title = f"{function.__name__} {str(dtype).removeprefix('torch.')} {dim}"
                yield title, partial(_launch, title, shape, function, dtype)


def _launch(title: str, shape: Shape, function: Callable[..., torch.Tensor], dtype: torch.dtype) -> None:
    call, leaves = _make(title, shape, function, "cpu", dtype)
    (z,) = call(*leaves, backend="triton")
    torch.autograd.grad(z, leaves, torch.zeros_like(z))
