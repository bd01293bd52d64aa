"""Cases that the token shift must get right, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate
from typing import NamedTuple

import torch

from fla.modules.token_shift.api import token_shift
from fla.utils.spec import Case, Cost, Made, Results, Sizes, Spec, seeded


class Shape(NamedTuple):
    """One call: sizes, lengths of packed sequences if any, and the cache if there is one."""

    B: int
    T: int
    D: int
    lengths: tuple[int, ...] = ()
    cache: str = ""
    """``"3d"``, ``"2d"``, or ``"float32"`` for a 2-d cache in float32."""
    strided: bool = False


SHAPES = {
    "one step": Shape(2, 1, 5),
    "one step, cache": Shape(3, 1, 8, cache="3d"),
    "plain": Shape(2, 9, 12),
    "cache": Shape(2, 9, 12, cache="2d"),
    "cache in float32": Shape(2, 9, 12, cache="float32"),
    "strided": Shape(2, 7, 12, cache="3d", strided=True),
    "packed": Shape(1, 50, 8, lengths=(1, 0, 14, 35)),
    "packed, cache": Shape(1, 50, 8, lengths=(0, 2, 33, 0, 15, 0), cache="3d"),
    "longer than a block": Shape(1, 800, 5, cache="2d"),
    "packed, longer than a block": Shape(1, 700, 7, lengths=(513, 1, 0, 186), cache="3d"),
    "wide": Shape(2, 70, 384, cache="2d"),
    "wide, packed": Shape(1, 500, 200, lengths=(3, 64, 1, 432), cache="3d"),
    "train": Shape(8, 4096, 2048),
    "train, packed": Shape(1, 32768, 2048, lengths=(4000, 8000, 20768), cache="3d"),
}


def _make(name: str, s: Shape, device: torch.device | str, dtype: torch.dtype) -> Made:
    generator = seeded(name)
    sequences = len(s.lengths) or s.B

    def draw(*size: int, dtype: torch.dtype = dtype) -> torch.Tensor:
        x = torch.randn(*size[:-1], size[-1] * (2 if s.strided else 1), generator=generator, dtype=torch.float64)
        return x.to(device, dtype)[..., : size[-1]].requires_grad_()

    leaves = [draw(s.B, s.T, s.D)]
    if s.cache:
        cache_dtype = torch.promote_types(dtype, torch.float32) if s.cache == "float32" else dtype
        leaves.append(draw(*((sequences, 1, s.D) if s.cache == "3d" else (sequences, s.D)), dtype=cache_dtype))
    ends = torch.tensor([0, *accumulate(s.lengths)], device=device, dtype=torch.int32) if s.lengths else None

    def call(x: torch.Tensor, cache: torch.Tensor | None = None, backend: str | None = None) -> Results:
        return token_shift(x, ends, cache, output_cache=True, backend=backend)

    return call, leaves


def _cases() -> Iterator[Case]:
    for title, shape in SHAPES.items():
        name = f"token_shift: {title}"
        elements = shape.B * shape.T * shape.D
        tags = {"tiny"} if elements <= 5000 else {"large"} if elements > 1 << 20 else set()
        yield Case(name, partial(_make, name, shape), frozenset(tags))


def cost(sizes: Sizes, element: int) -> Cost:
    """x read and the differences written; the backward pass reads their gradient and writes that of x."""
    stream = sizes["B"] * sizes["T"] * sizes["D"] * element
    return Cost(bytes_fwd=2 * stream, bytes_bwd=2 * stream, flops_fwd=0, flops_bwd=0)


SPEC = Spec(
    name="token_shift",
    paper="2305.13048",
    functions=("token_shift",),
    backends=("triton", "torch"),
    cases=tuple(_cases()),
    cost=cost,
    truth="torch",
    features=frozenset({"state", "packed", "compile", "backward"}),
)


def aot_cases() -> Iterator[tuple[str, Callable[[], None]]]:
    """One call of every kernel for each kind of tile, to be compiled without a GPU."""
    for dtype in (torch.bfloat16, torch.float32):
        for channels in (64, 2048):
            for lengths in ((), (40, 24)):
                shape = Shape(1, 64, channels, lengths=lengths, cache="3d" if lengths else "")
                title = f"token_shift {str(dtype).removeprefix('torch.')} {channels}{' packed' if lengths else ''}"
                yield title, partial(_launch, title, shape, dtype)


def _launch(title: str, shape: Shape, dtype: torch.dtype) -> None:
    call, leaves = _make(title, shape, "cpu", dtype)
    delta, _ = call(*leaves, backend="triton")
    torch.autograd.grad(delta, leaves, torch.zeros_like(delta))
