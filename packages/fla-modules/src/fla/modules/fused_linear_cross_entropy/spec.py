"""Cases that the linear cross entropy must get right, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch

from fla.modules.fused_linear_cross_entropy.api import fused_linear_cross_entropy_loss
from fla.utils.spec import Case, Cost, Made, Results, Sizes, Spec, seeded


class Shape(NamedTuple):
    """One call: rows, channels, classes, options, whether there is a bias, and how many rows are ignored."""

    N: int
    D: int
    V: int
    options: dict[str, Any] = {}
    bias: bool = False
    ignored: int = 0


EVERYTHING = {"label_smoothing": 0.1, "logit_scale": 0.5, "logit_softcapping": 4.0, "use_l2warp": True}
SHAPES = {
    "plain": Shape(7, 8, 33),
    "bias, some ignored": Shape(10, 6, 20, {"reduction": "sum"}, bias=True, ignored=3),
    "smoothing, scale, cap, l2warp": Shape(9, 8, 30, {**EVERYTHING, "l2_penalty_factor": 0.1}, bias=True),
    "more chunks than rows": Shape(3, 4, 10, {"num_chunks": 8}),
    "sums in the low dtype": Shape(9, 8, 20, {"accumulate_grad_in_fp32": False, "num_chunks": 2}, ignored=2),
    "whole and partial blocks": Shape(2, 4, 4100, {"num_chunks": 2}, ignored=1),
    "odd vocabulary": Shape(64, 32, 8195, EVERYTHING, ignored=9),
    "train": Shape(1024, 512, 32000, ignored=100),
}


def _make(name: str, shape: Shape, device: torch.device | str, dtype: torch.dtype) -> Made:
    generator = seeded(name)
    dims = {"x": (shape.N, shape.D), "weight": (shape.V, shape.D)} | ({"bias": (shape.V,)} if shape.bias else {})
    drawn = {n: torch.randn(d, generator=generator, dtype=torch.float64).to(device, dtype) for n, d in dims.items()}
    target = torch.randint(0, shape.V, (shape.N,), generator=generator)
    target[: shape.ignored] = -100
    target = target.to(device)

    def call(*tensors: torch.Tensor, backend: str | None = None) -> Results:
        arguments: dict[str, Any] = dict(zip(drawn, tensors))
        return (fused_linear_cross_entropy_loss(target=target, **arguments, **shape.options, backend=backend),)

    return call, [x.requires_grad_() for x in drawn.values()]


def _cases() -> Iterator[Case]:
    for title, shape in SHAPES.items():
        name = f"fused_linear_cross_entropy_loss: {title}"
        tags = {"tiny"} if shape.N * shape.V <= 10000 else {"large"}
        yield Case(name, partial(_make, name, shape), frozenset(tags))


def cost(sizes: Sizes, element: int) -> Cost:
    """Three matrix products, all in the forward pass."""
    products = 6 * sizes["N"] * sizes["D"] * sizes["V"]
    moved = 2 * element * (sizes["N"] + sizes["V"]) * sizes["D"]
    return Cost(bytes_fwd=moved, bytes_bwd=moved, flops_fwd=products, flops_bwd=0)


SPEC = Spec(
    name="fused_linear_cross_entropy",
    paper="",
    functions=("fused_linear_cross_entropy_loss",),
    backends=("triton", "torch"),
    cases=tuple(_cases()),
    cost=cost,
    truth="torch",
    features=frozenset({"compile", "backward"}),
)


def aot_cases() -> Iterator[tuple[str, Callable[[], None]]]:
    """The kernels are those of the cross entropy, here with the gradient in the same launch."""
    for classes in (256, 32000, 151936):
        for options in ({}, EVERYTHING):
            title = f"fused_linear_cross_entropy_loss {classes}{' options' if options else ''}"
            yield title, partial(_launch, Shape(8, 16, classes, options))


def _launch(shape: Shape) -> None:
    call, leaves = _make("aot", shape, "cpu", torch.bfloat16)
    torch.autograd.grad(call(*leaves, backend="triton")[0], leaves)
