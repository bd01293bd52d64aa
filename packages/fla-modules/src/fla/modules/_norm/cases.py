"""The cases of every norm, and what a norm costs: their specs differ in the function alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch

from fla.utils.spec import Case, Cost, Made, Results, seeded


class Shape(NamedTuple):
    """One call of a norm: the rows, and which of its arguments are there."""

    rows: tuple[int, ...]
    dim: int
    weight: bool = True
    bias: bool = False
    residual: bool = False
    residual_in_fp32: bool = False
    options: tuple[tuple[str, Any], ...] = ()
    strided: bool = False
    float32_weight: bool = False


SHAPES = {
    "one row": Shape((1,), 8),
    "three channels": Shape((5,), 3, bias=True, options=(("eps", 0.1),)),
    "no parameters": Shape((3, 7), 33, weight=False),
    "bias": Shape((2, 5), 24, bias=True),
    "bias without weight": Shape((2, 5), 24, weight=False, bias=True),
    "odd channels, many rows": Shape((67,), 17, bias=True),
    "strided": Shape((4, 6), 20, strided=True),
    "residual": Shape((2, 9), 40, bias=True, residual=True),
    "residual in float32": Shape((2, 9), 40, residual=True, residual_in_fp32=True),
    "sum alone in float32": Shape((2, 9), 40, residual_in_fp32=True),
    "parameters in float32": Shape((11,), 48, bias=True, float32_weight=True),
    "no epsilon": Shape((3,), 12, options=(("eps", 0.0),)),
    "head dim 128": Shape((2, 300, 3), 128),
    "width 1000": Shape((200,), 1000, bias=True, residual=True),
    "width 2048": Shape((4, 65), 2048, bias=True),
    "width 4096, residual": Shape((130,), 4096, residual=True),
    "width 8192": Shape((70,), 8192, bias=True),
    "more rows than programs": Shape((20_000,), 256, bias=True),
    "train": Shape((8, 4096), 2048),
}
"""Every legal combination once, then the sizes of real models."""

TINY = 3000


def cases(
    function: Callable[..., Any],
    gated: bool,
    options: tuple[tuple[str, Any], ...] = (),
    title: str = "",
    shapes: Mapping[str, Shape] = SHAPES,
) -> Iterator[Case]:
    """The cases of ``function(x, [g,] weight, bias, ..., prenorm=True)``."""
    for shape_title, shape in shapes.items():
        name = f"{function.__name__}{title}: {shape_title}"
        shape = shape._replace(options=(*options, *shape.options))
        elements = shape.dim
        for size in shape.rows:
            elements *= size
        tags = {"tiny"} if elements <= TINY else {"large"} if elements > 1 << 20 else set()
        yield Case(name, partial(make, name, shape, function, gated), frozenset(tags))


def make(
    name: str,
    shape: Shape,
    function: Callable[..., Any],
    gated: bool,
    device: torch.device | str,
    dtype: torch.dtype,
) -> Made:
    """Random inputs for ``shape``, every one of them a leaf, and the call that takes them."""
    generator = seeded(name)
    size = (*shape.rows, shape.dim)

    def draw(*size: int, dtype: torch.dtype = dtype) -> torch.Tensor:
        x = torch.randn(*size[:-1], size[-1] * (2 if shape.strided else 1), generator=generator, dtype=torch.float64)
        return x.to(device, dtype)[..., : size[-1]].requires_grad_()

    parameter_dtype = torch.promote_types(dtype, torch.float32) if shape.float32_weight else dtype
    leaves = {"x": draw(*size)}
    if gated:
        leaves["g"] = draw(*size)
    if shape.weight:
        leaves["weight"] = draw(shape.dim, dtype=parameter_dtype)
    if shape.bias:
        leaves["bias"] = draw(shape.dim, dtype=parameter_dtype)
    if shape.residual:
        leaves["residual"] = draw(*size, dtype=torch.promote_types(dtype, torch.float32))

    def call(*tensors: torch.Tensor, backend: str | None = None) -> Results:
        arguments = {"weight": None, "bias": None, **dict(zip(leaves, tensors, strict=True)), **dict(shape.options)}
        prenorm = shape.residual or shape.residual_in_fp32
        returned = function(**arguments, prenorm=prenorm, residual_in_fp32=shape.residual_in_fp32, backend=backend)
        return returned if prenorm else (returned,)

    return call, list(leaves.values())


def cost(streams_fwd: int, streams_bwd: int, sizes: Mapping[str, int], element: int) -> Cost:
    """So many tensors like x read or written; the arithmetic does not count."""
    stream = sizes["N"] * sizes["D"] * element
    return Cost(bytes_fwd=streams_fwd * stream, bytes_bwd=streams_bwd * stream, flops_fwd=0, flops_bwd=0)


def aot_cases(
    rms: Callable[..., Any], layer: Callable[..., Any], gated: bool
) -> Iterator[tuple[str, Callable[[], None]]]:
    """A call for every kind of tile, with x and weight alone and with all arguments, to be compiled without a GPU."""
    widths = (
        (rms, False, (128, 2048, 8192)),
        (rms, True, (128, 4096)),
        (layer, False, (1000,)),
        (layer, True, (4096,)),
    )
    for dtype in (torch.bfloat16, torch.float32):
        for function, full, dims in widths:
            for dim in dims:
                shape = Shape((4,), dim, bias=full, residual=full)
                title = f"{function.__name__} {str(dtype).removeprefix('torch.')} {dim}{' with all' if full else ''}"
                yield title, partial(launch, title, shape, function, gated, dtype)


def launch(title: str, shape: Shape, function: Callable[..., Any], gated: bool, dtype: torch.dtype) -> None:
    """Run every kernel of one call, with the triton backend on CPU tensors."""
    call, leaves = make(title, shape, function, gated, "cpu", dtype)
    outputs = call(*leaves, backend="triton")
    torch.autograd.grad(list(outputs), leaves, [torch.zeros_like(o) for o in outputs])
