"""Cases that softmax attention must get right, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import accumulate
from typing import NamedTuple

import torch

from fla.ops.attn.api import parallel_attn
from fla.utils.spec import Case, Cost, Made, Results, Spec, seeded


class Shape(NamedTuple):
    """One call: sizes, window, and lengths of packed sequences and of their keys, if any."""

    B: int
    T: int
    S: int
    HQ: int
    H: int
    K: int
    V: int
    window_size: int | None = None
    lengths: tuple[int, ...] = ()
    lengths_k: tuple[int, ...] = ()


SHAPES = {
    "causal": Shape(2, 70, 70, 2, 2, 16, 16),
    "grouped heads, values of another width": Shape(1, 33, 33, 4, 2, 16, 24),
    "window": Shape(2, 90, 90, 2, 1, 16, 16, window_size=7),
    "window of several blocks": Shape(1, 700, 700, 2, 2, 32, 32, window_size=300),
    "window of two": Shape(1, 60, 60, 2, 1, 16, 16, window_size=2),
    "values narrower than keys": Shape(1, 40, 40, 2, 2, 24, 16, lengths=(10, 30)),
    "one step after others": Shape(3, 1, 50, 4, 2, 16, 16),
    "steps after others": Shape(2, 9, 50, 2, 2, 16, 16),
    "steps after others, window": Shape(2, 9, 50, 2, 2, 16, 16, window_size=20),
    "packed": Shape(1, 90, 90, 2, 2, 16, 16, lengths=(1, 31, 0, 58)),
    "packed, window, grouped heads": Shape(1, 90, 90, 4, 2, 16, 16, window_size=10, lengths=(50, 40)),
    "packed after others": Shape(1, 8, 60, 2, 2, 16, 16, lengths=(3, 0, 5), lengths_k=(20, 10, 30)),
    "packed after others, window": Shape(1, 8, 60, 2, 2, 16, 16, window_size=12, lengths=(3, 5), lengths_k=(20, 40)),
    "head dim 128": Shape(2, 1000, 1000, 4, 2, 128, 128),
    "head dim 128, packed, window": Shape(1, 4000, 4000, 4, 4, 128, 128, window_size=500, lengths=(1500, 2500)),
}


def _make(name: str, shape: Shape, device: torch.device | str, dtype: torch.dtype) -> Made:
    """Random inputs for ``shape``, every one of them a leaf, and the call that takes them."""
    s, generator = shape, seeded(name)
    sizes = ((s.B, s.T, s.HQ, s.K), (s.B, s.S, s.H, s.K), (s.B, s.S, s.H, s.V))
    leaves = [
        torch.randn(size, generator=generator, dtype=torch.float64).to(device=device, dtype=dtype).requires_grad_()
        for size in sizes
    ]
    ends, ends_k = (
        torch.tensor([0, *accumulate(lengths)], device=device, dtype=torch.int32) if lengths else None
        for lengths in (s.lengths, s.lengths_k)
    )

    def call(*tensors: torch.Tensor, backend: str | None = None) -> Results:
        q, k, v = tensors
        return [
            parallel_attn(q, k, v, window_size=s.window_size, cu_seqlens=ends, cu_seqlens_k=ends_k, backend=backend)
        ]

    return call, leaves


def _cases() -> Iterator[Case]:
    for title, shape in SHAPES.items():
        name = f"parallel_attn: {title}"
        tags = {"large"} if shape.T > 900 else set()
        yield Case(name, partial(_make, name, shape), frozenset(tags))


def cost(sizes: Mapping[str, int], element: int) -> Cost:
    """Every input read once and every output written once; half of the score matrix, and a backward of 2.5 forwards."""
    steps, length = sizes["B"] * sizes["T"], sizes["B"] * sizes["S"]
    width = sizes["K"] + sizes["V"]
    moved = element * (steps * sizes["HQ"] * width + length * sizes["H"] * width)
    flops = steps * sizes["S"] * sizes["HQ"] * width
    return Cost(bytes_fwd=moved, bytes_bwd=2 * moved, flops_fwd=flops, flops_bwd=2.5 * flops)


SPEC = Spec(
    name="attn",
    paper="1706.03762",
    functions=("parallel_attn",),
    backends=("torch", "reference"),
    cases=tuple(_cases()),
    cost=cost,
    features=frozenset({"packed", "backward"}),
)
