"""Cases that the rotary embedding must get right, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import accumulate
from typing import NamedTuple

import torch

from fla.modules.rotary.api import rotary_embedding, rotate
from fla.modules.rotary.positions import Tables
from fla.utils.spec import Case, Cost, Made, Results, Spec, seeded


class Shape(NamedTuple):
    """One call: sizes, how many channels turn (all unless given), offsets and lengths of packed sequences."""

    B: int
    T: int
    H: int
    D: int
    R: int = 0
    interleaved: bool = False
    offsets: int | tuple[int, ...] = 0
    lengths: tuple[int, ...] = ()
    strided: bool = False
    HK: int = 0
    """Heads of keys that turn in the same call, by tables of their own."""


SHAPES = {
    "one step": Shape(1, 1, 1, 2),
    "dense": Shape(2, 7, 2, 16),
    "interleaved": Shape(2, 7, 2, 16, interleaved=True),
    "part of the channels": Shape(2, 5, 3, 24, R=10),
    "part of the channels, interleaved": Shape(2, 5, 3, 23, R=10, interleaved=True),
    "offset": Shape(2, 3, 2, 8, offsets=5),
    "offset for each sequence": Shape(3, 1, 2, 8, offsets=(0, 4, 9)),
    "packed": Shape(1, 20, 2, 8, lengths=(1, 7, 0, 12)),
    "packed, offset": Shape(1, 20, 2, 8, offsets=3, lengths=(8, 12)),
    "packed, offset for each sequence": Shape(1, 20, 2, 8, offsets=(3, 0), lengths=(8, 12)),
    "strided": Shape(2, 6, 2, 8, strided=True),
    "queries and keys": Shape(2, 7, 4, 8, HK=2, offsets=2),
    "queries and keys, packed": Shape(1, 13, 2, 8, HK=3, lengths=(6, 7)),
    "head dim 128": Shape(2, 130, 4, 128, HK=1),
    "head dim 256, half of it": Shape(1, 100, 3, 256, R=128, interleaved=True),
    "packed, head dim 64": Shape(1, 400, 3, 64, lengths=(100, 1, 299)),
    "train": Shape(8, 4096, 16, 128),
}


def _make(name: str, shape: Shape, device: torch.device | str, dtype: torch.dtype) -> Made:
    """Random x (and keys) and angles; the tables are no leaves."""
    s, generator = shape, seeded(name)
    x = torch.randn(s.B, s.T, s.H * (2 if s.strided else 1), s.D, generator=generator, dtype=torch.float64)
    x = x.to(device, dtype)[:, :, : s.H].requires_grad_()
    last = s.offsets if isinstance(s.offsets, int) else max(s.offsets)
    angles = 3 * torch.randn(s.T + last, (s.R or s.D) // 2, generator=generator, dtype=torch.float64)
    cos, sin = angles.cos().float().to(device), angles.sin().float().to(device)
    offsets = s.offsets if isinstance(s.offsets, int) else torch.tensor(s.offsets, device=device)
    cu_seqlens = torch.tensor([0, *accumulate(s.lengths)], device=device, dtype=torch.int32) if s.lengths else None

    def call(*tensors: torch.Tensor, backend: str | None = None) -> Results:
        if len(tensors) == 1:
            return (rotary_embedding(tensors[0], cos, sin, s.interleaved, False, offsets, cu_seqlens, backend),)
        q, k = tensors
        turned_q, turned_k = rotate(q, k, Tables(cos, sin, sin, cos), s.interleaved, offsets, cu_seqlens, backend)
        assert turned_k is not None
        return turned_q, turned_k

    if not s.HK:
        return call, [x]
    k = torch.randn(s.B, s.T, s.HK, s.D, generator=generator, dtype=torch.float64)
    return call, [x, k.to(device, dtype).requires_grad_()]


def _cases() -> Iterator[Case]:
    for title, shape in SHAPES.items():
        name = f"rotary_embedding: {title}"
        elements = shape.B * shape.T * shape.H * shape.D
        tags = {"tiny"} if elements <= 3000 else {"large"} if elements > 1 << 20 else set()
        yield Case(name, partial(_make, name, shape), frozenset(tags))


def cost(sizes: Mapping[str, int], element: int) -> Cost:
    """x read and y written; the tables are shared by all heads."""
    stream = sizes["B"] * sizes["T"] * sizes["H"] * sizes["D"] * element
    return Cost(bytes_fwd=2 * stream, bytes_bwd=2 * stream, flops_fwd=0, flops_bwd=0)


SPEC = Spec(
    name="rotary",
    paper="2104.09864",
    functions=("rotary_embedding",),
    backends=("triton", "torch"),
    cases=tuple(_cases()),
    cost=cost,
    truth="torch",
    features=frozenset({"packed", "compile", "backward"}),
)


def aot_cases() -> Iterator[tuple[str, Callable[[], None]]]:
    """One call of every kernel for each tile that ships, to be compiled without a GPU."""
    for dtype in (torch.bfloat16, torch.float32):
        for dim in (128, 256):
            for interleaved in (False, True):
                for packed in (False, True):
                    shape = Shape(1, 8, 2, dim, interleaved=interleaved, lengths=(3, 5) if packed else (), HK=1)
                    title = f"rotary_embedding {str(dtype).removeprefix('torch.')} {dim}"
                    title += f"{' interleaved' if interleaved else ''}{' packed' if packed else ''}"
                    yield title, partial(_launch, title, shape, dtype)


def _launch(title: str, shape: Shape, dtype: torch.dtype) -> None:
    call, leaves = _make(title, shape, "cpu", dtype)
    turned = call(*leaves, backend="triton")
    torch.autograd.grad(list(turned), leaves, [torch.zeros_like(y) for y in turned])
