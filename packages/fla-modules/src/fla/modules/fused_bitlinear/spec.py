"""Cases that the norm with quantisation must get right, and what it costs; the rest of BitLinear is PyTorch's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch

from fla.modules._norm import cases
from fla.modules.fused_bitlinear.api import rms_norm_quant
from fla.utils.spec import Case, Made, Results, Spec, seeded


class Shape(NamedTuple):
    """The rows of one call, and which of its arguments are there."""

    rows: tuple[int, ...]
    dim: int
    weight: bool = True
    residual: bool = False


SHAPES = {
    "one row": Shape((1,), 8),
    "three channels": Shape((5,), 3, weight=False),
    "odd channels, many rows": Shape((67,), 17),
    "residual": Shape((2, 9), 40, residual=True),
    "no weight, residual": Shape((2, 5), 33, weight=False, residual=True),
    "width 1000": Shape((200,), 1000),
    "width 2048": Shape((4, 65), 2048),
    "width 5632, residual": Shape((130,), 5632, residual=True),
    "width 8192": Shape((70,), 8192),
    "train": Shape((8, 4096), 2048),
}


def _make(name: str, shape: Shape, device: torch.device | str, dtype: torch.dtype) -> Made:
    """Rows whose every value is a whole number of steps, or a quarter of a step beside one, in any dtype.

    Nothing lies near the middle between two steps, where another order of summation may take the other one: what is
    compared is rounding, not on which side of a tie it falls.
    """
    generator = seeded(name)
    size = (*shape.rows, shape.dim)

    def integers(low: int, high: int, *size: int) -> torch.Tensor:
        return torch.randint(low, high + 1, size, generator=generator).double()

    total = integers(-127, 127, *size)
    total[..., 0] = 127 * integers(0, 1, *shape.rows).mul(2).sub(1)
    residual = integers(-100, 100, *size) if shape.residual else torch.zeros(size, dtype=torch.float64)
    x = total - residual
    # Up to here quarters are exact in bfloat16.
    x = x + torch.where((x.abs() < 32) & (total.abs() < 127), integers(-1, 1, *size) / 4, 0)
    weight = 2 ** integers(-2, 2, shape.dim) if shape.weight else torch.ones(shape.dim, dtype=torch.float64)
    row_scale = 2 ** integers(-6, 2, *shape.rows, 1)
    leaves = {"x": x * row_scale / weight}
    if shape.weight:
        leaves["weight"] = weight
    if shape.residual:
        leaves["residual"] = residual * row_scale / weight
    leaves = {key: leaf.to(device, dtype).requires_grad_() for key, leaf in leaves.items()}

    def call(*tensors: torch.Tensor, backend: str | None = None) -> Results:
        arguments: dict[str, Any] = dict(zip(leaves, tensors, strict=True))
        returned = rms_norm_quant(**arguments, prenorm=shape.residual, backend=backend)
        return returned if isinstance(returned, tuple) else (returned,)

    return call, list(leaves.values())


def _cases() -> Iterator[Case]:
    for title, shape in SHAPES.items():
        elements = shape.dim * torch.Size(shape.rows).numel()
        tags = {"tiny"} if elements <= cases.TINY else {"large"} if elements > 1 << 20 else set()
        name = f"rms_norm_quant: {title}"
        yield Case(name, partial(_make, name, shape), frozenset(tags))


SPEC = Spec(
    name="fused_bitlinear",
    paper="2402.17764",
    functions=("rms_norm_quant",),
    backends=("triton", "torch"),
    cases=tuple(_cases()),
    cost=partial(cases.cost, 2, 3),
    truth="torch",
    features=frozenset({"compile", "backward"}),
)


def aot_cases() -> Iterator[tuple[str, Callable[[], None]]]:
    """One call of every kernel for each kind of tile, to be compiled without a GPU."""
    for dtype in (torch.bfloat16, torch.float32):
        for dim, residual in ((128, False), (2048, True), (8192, False)):
            title = f"rms_norm_quant {str(dtype).removeprefix('torch.')} {dim}"
            yield title, partial(_launch, title, Shape((4,), dim, residual=residual), dtype)


def _launch(title: str, shape: Shape, dtype: torch.dtype) -> None:
    call, leaves = _make(title, shape, "cpu", dtype)
    outputs = call(*leaves, backend="triton")
    torch.autograd.grad(list(outputs), leaves, [torch.zeros_like(o) for o in outputs])
