"""Cases that the short convolution must get right, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate
from typing import NamedTuple

import torch

from fla.modules.convolution.api import causal_conv1d, causal_conv1d_update
from fla.utils.spec import Case, Cost, Made, Results, Sizes, Spec, seeded


class Shape(NamedTuple):
    """One call: sizes, lengths of packed sequences if any, and what goes with it."""

    B: int
    T: int
    D: int
    W: int = 4
    lengths: tuple[int, ...] = ()
    activation: str | None = "silu"
    extras: tuple[str, ...] = ()
    """Of ``bias``, ``residual``, ``initial_state``."""


ALL = ("bias", "residual", "initial_state")
SHAPES = {
    "one step": Shape(2, 1, 5),
    "shorter than the filter": Shape(2, 2, 8, extras=ALL),
    "plain": Shape(2, 9, 12, activation=None),
    "everything": Shape(2, 40, 20, extras=ALL),
    "width 1": Shape(1, 5, 8, W=1, extras=("bias",)),
    "width 3": Shape(1, 35, 8, W=3, extras=("initial_state",)),
    "packed": Shape(1, 50, 8, lengths=(1, 0, 14, 35)),
    "packed, everything": Shape(1, 50, 8, lengths=(2, 33, 0, 15), extras=ALL),
    "longer than a block": Shape(1, 150, 5, extras=ALL),
    "packed, longer than a block": Shape(1, 210, 4, lengths=(66, 1, 0, 143), extras=ALL),
    "width 9": Shape(1, 20, 8, W=9, extras=ALL),
    "wide": Shape(2, 300, 384, extras=ALL),
    "wide, packed": Shape(1, 500, 200, lengths=(3, 64, 1, 432), extras=ALL),
    "more blocks than programs": Shape(2, 300_000, 32, extras=("bias",)),
    "train": Shape(8, 4096, 2048),
}


def _draw(name: str, s: Shape, device: torch.device | str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    generator = seeded(name)
    shapes = {"x": (s.B, s.T, s.D), "weight": (s.D, s.W), "bias": (s.D,), "residual": (s.B, s.T, s.D)}
    shapes["initial_state"] = (len(s.lengths) or s.B, s.D, s.W)
    names = ["x", "weight", *s.extras]
    return {
        n: torch.randn(shapes[n], generator=generator, dtype=torch.float64).to(device, dtype).requires_grad_()
        for n in names
    }


def _make(name: str, s: Shape, device: torch.device | str, dtype: torch.dtype) -> Made:
    drawn = _draw(name, s, device, dtype)
    ends = torch.tensor([0, *accumulate(s.lengths)], device=device, dtype=torch.int32) if s.lengths else None

    def call(*tensors: torch.Tensor, backend: str | None = None) -> Results:
        arguments = dict(zip(drawn, tensors))
        y, state = causal_conv1d(
            **arguments, output_final_state=True, activation=s.activation, cu_seqlens=ends, backend=backend
        )
        assert state is not None
        return y, state

    return call, list(drawn.values())


def _make_update(name: str, s: Shape, device: torch.device | str, dtype: torch.dtype) -> Made:
    drawn = {n: x.detach() for n, x in _draw(name, s, device, dtype).items()}

    def call(*tensors: torch.Tensor, backend: str | None = None) -> Results:
        arguments = dict(zip(drawn, tensors))
        arguments["cache"] = arguments.pop("initial_state").clone()
        return causal_conv1d_update(**arguments, activation=s.activation, backend=backend)

    return call, list(drawn.values())


UPDATE_SHAPES = {
    "one sequence": Shape(1, 1, 5, extras=("initial_state",)),
    "everything": Shape(3, 1, 20, extras=ALL),
    "width 3, no activation": Shape(4, 1, 300, W=3, activation=None, extras=ALL),
}


def _cases() -> Iterator[Case]:
    for function, make, shapes in (
        (causal_conv1d, _make, SHAPES),
        (causal_conv1d_update, _make_update, UPDATE_SHAPES),
    ):
        for title, shape in shapes.items():
            name = f"{function.__name__}: {title}"
            elements = shape.B * shape.T * shape.D
            tags = {"tiny"} if elements <= 2000 else {"large"} if elements > 1 << 20 else set()
            yield Case(name, partial(make, name, shape), frozenset(tags))


def cost(sizes: Sizes, element: int) -> Cost:
    """x read and y written; the backward pass reads x and dy and writes dx."""
    stream = sizes["B"] * sizes["T"] * sizes["D"] * element
    return Cost(bytes_fwd=2 * stream, bytes_bwd=3 * stream, flops_fwd=0, flops_bwd=0)


SPEC = Spec(
    name="convolution",
    paper="",
    functions=("causal_conv1d", "causal_conv1d_update"),
    backends=("triton", "torch"),
    cases=tuple(_cases()),
    cost=cost,
    truth="torch",
    features=frozenset({"state", "packed", "compile", "backward"}),
)


def aot_cases() -> Iterator[tuple[str, Callable[[], None]]]:
    """One call of every kernel for each tile that ships, to be compiled without a GPU."""
    for dtype in (torch.bfloat16, torch.float32):
        for channels in (64, 2048):
            for lengths in ((), (40, 24)):
                shape = Shape(1, 64, channels, lengths=lengths, extras=ALL if lengths else ())
                title = f"causal_conv1d {str(dtype).removeprefix('torch.')} {channels}{' packed' if lengths else ''}"
                yield title, partial(_launch, title, shape, dtype)
        yield f"causal_conv1d_update {dtype}", partial(_launch_update, Shape(2, 1, 2048, extras=ALL), dtype)


def _launch(title: str, shape: Shape, dtype: torch.dtype) -> None:
    call, leaves = _make(title, shape, "cpu", dtype)
    y, _ = call(*leaves, backend="triton")
    torch.autograd.grad(y, leaves, torch.zeros_like(y))


def _launch_update(shape: Shape, dtype: torch.dtype) -> None:
    call, tensors = _make_update("aot", shape, "cpu", dtype)
    call(*tensors, backend="triton")
