"""Cases that the cross entropy must get right, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch

from fla.modules.fused_cross_entropy.api import reduced_cross_entropy
from fla.modules.fused_cross_entropy.options import LossOptions, loss_options
from fla.utils.spec import Case, Cost, Made, Results, Sizes, Spec, seeded

PLAIN = LossOptions()


class Shape(NamedTuple):
    """One call: rows, classes, options, reduction, where the gradient goes, and how many rows are ignored."""

    N: int
    V: int
    options: LossOptions = PLAIN
    reduction: str = "mean"
    inplace_backward: bool = False
    ignored: int = 0


EVERYTHING = loss_options(-100, 0.1, 0.5, 1e-2, 4.0)
SHAPES = {
    "one class": Shape(3, 1),
    "plain": Shape(7, 33),
    "sum, some ignored": Shape(6, 100, reduction="sum", ignored=2),
    "mean, all ignored": Shape(3, 10, ignored=3),
    "smoothing, scale, z-loss, cap": Shape(6, 130, EVERYTHING, ignored=1),
    "whole blocks": Shape(3, 256, PLAIN._replace(label_smoothing=0.1), ignored=1),
    "whole and partial blocks": Shape(2, 4100, EVERYTHING),
    "row by row": Shape(5, 50, EVERYTHING, "none"),
    "gradient in place": Shape(4, 40, inplace_backward=True),
    "odd vocabulary": Shape(64, 32003, EVERYTHING, ignored=9),
    "train": Shape(2048, 32000),
    "large vocabulary": Shape(512, 151936, PLAIN._replace(lse_square_scale=1e-4)),
}


def _make(name: str, shape: Shape, device: torch.device | str, dtype: torch.dtype) -> Made:
    generator = seeded(name)
    logits = 3 * torch.randn(shape.N, shape.V, generator=generator, dtype=torch.float64)
    target = torch.randint(0, shape.V, (shape.N,), generator=generator)
    target[: shape.ignored] = -100
    target = target.to(device)

    def call(*tensors: torch.Tensor, backend: str | None = None) -> Results:
        # A leaf's memory must outlive the call: what is written in place is a copy of it.
        return reduced_cross_entropy(
            tensors[0] * 1, target, shape.reduction, shape.options, shape.inplace_backward, backend=backend
        )

    return call, [logits.to(device, dtype).requires_grad_()]


def _cases() -> Iterator[Case]:
    for title, shape in SHAPES.items():
        name = f"cross_entropy_loss: {title}"
        elements = shape.N * shape.V
        tags = {"tiny"} if elements <= 10000 else {"large"} if elements > 1 << 22 else set()
        yield Case(name, partial(_make, name, shape), frozenset(tags))


def cost(sizes: Sizes, element: int) -> Cost:
    """Logits read forward, read and written backward."""
    logits = sizes["N"] * sizes["V"] * element
    return Cost(bytes_fwd=logits, bytes_bwd=2 * logits, flops_fwd=0, flops_bwd=0)


SPEC = Spec(
    name="fused_cross_entropy",
    paper="",
    functions=("cross_entropy_loss",),
    backends=("triton", "torch"),
    cases=tuple(_cases()),
    cost=cost,
    truth="torch",
    features=frozenset({"compile", "backward"}),
)


def aot_cases() -> Iterator[tuple[str, Callable[[], None]]]:
    """One call of every kernel for each block that ships, to be compiled without a GPU."""
    for dtype in (torch.bfloat16, torch.float32):
        for classes in (256, 32000, 151936):
            for options in (PLAIN, EVERYTHING):
                suffix = " options" if options is EVERYTHING else ""
                title = f"cross_entropy_loss {str(dtype).removeprefix('torch.')} {classes}{suffix}"
                yield title, partial(_launch, title, Shape(2, classes, options), dtype)


def _launch(title: str, shape: Shape, dtype: torch.dtype) -> None:
    call, leaves = _make(title, shape, "cpu", dtype)
    loss, _ = call(*leaves, backend="triton")
    torch.autograd.grad(loss, leaves)
