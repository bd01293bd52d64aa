"""Cases that the L2 norm must get right, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from fla.modules._norm import cases
from fla.modules.l2norm.api import l2_norm
from fla.utils.spec import Case, Made, Results, Spec, seeded

SHAPES = {
    "one row": (1, 8),
    "odd": (2, 5, 33),
    "many rows": (67, 17),
    "head dim 128": (2, 300, 3, 128),
    "width 2048": (70, 2048),
    "train": (8, 4096, 16, 128),
}


def _make(name: str, shape: tuple[int, ...], in_float32: bool, device: torch.device | str, dtype: torch.dtype) -> Made:
    x = torch.randn(shape, generator=seeded(name), dtype=torch.float64).to(device, dtype).requires_grad_()

    def call(*tensors: torch.Tensor, backend: str | None = None) -> Results:
        out_dtype = torch.promote_types(tensors[0].dtype, torch.float32) if in_float32 else None
        return (l2_norm(tensors[0], output_dtype=out_dtype, backend=backend),)

    return call, [x]


def _cases() -> Iterator[Case]:
    for title, shape in SHAPES.items():
        elements = torch.Size(shape).numel()
        tags = {"tiny"} if elements <= cases.TINY else {"large"} if elements > 1 << 20 else set()
        for in_float32 in (False, True):
            name = f"l2_norm: {title}{', result in float32' if in_float32 else ''}"
            yield Case(name, partial(_make, name, shape, in_float32), frozenset(tags))


SPEC = Spec(
    name="l2norm",
    paper="",
    functions=("l2_norm",),
    backends=("triton", "torch"),
    cases=tuple(_cases()),
    cost=partial(cases.cost, 2, 3),
    truth="torch",
    features=frozenset({"compile", "backward"}),
)


def aot_cases() -> Iterator[tuple[str, Callable[[], None]]]:
    """One call of every kernel for each tile that ships, to be compiled without a GPU."""
    for dtype in (torch.bfloat16, torch.float32):
        for dim in (64, 128, 256):
            title = f"l2_norm {str(dtype).removeprefix('torch.')} {dim}"
            yield title, partial(_launch, title, dim, dtype)


def _launch(title: str, dim: int, dtype: torch.dtype) -> None:
    call, leaves = _make(title, (4, dim), False, "cpu", dtype)
    (y,) = call(*leaves, backend="triton")
    torch.autograd.grad(y, leaves, torch.zeros_like(y))
