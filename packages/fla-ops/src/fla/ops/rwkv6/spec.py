"""Cases that RWKV-6's recurrence must get right, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial, wraps
from typing import Any

import torch

from fla.ops._shared.cases import Shape, draw, launch, sequence_cases
from fla.ops.gla.spec import AOT_SPILL_ALLOWANCE as AOT_SPILL_ALLOWANCE, cost
from fla.ops.rwkv6.api import chunk_rwkv6, fused_recurrent_rwkv6
from fla.utils.spec import SequenceOp, Spec

SEQUENCES = {"r": "B T H K", "k": "B T H K", "v": "B T H V", "w": "B T H K -"}
OPERANDS = {**SEQUENCES, "u": "H K", "initial_state": "N H K V"}

CHUNK_SHAPES = {
    "one step": Shape(1, 1, 8, 4, 8),
    "one chunk and a bit": Shape(2, 67, 2, 16, 24, decay=1.0),
    "packed": Shape(1, 90, 2, 16, 16, lengths=(1, 31, 0, 40, 18)),
    "strong decay": Shape(1, 70, 1, 16, 16, decay=30.0),
    "head dim 64": Shape(2, 200, 3, 64, 64, decay=1.0),
    "head dim 128": Shape(2, 300, 2, 128, 128, decay=1.0),
    "head dim 128, packed": Shape(1, 333, 2, 128, 128, lengths=(64, 1, 200, 68)),
}
RECURRENT_SHAPES = {
    "one step": Shape(3, 1, 2, 16, 16),
    "reversed": Shape(2, 20, 2, 17, 9, decay=1.0, options={"reverse": True}),
    "packed": Shape(1, 30, 2, 16, 8, lengths=(10, 20)),
    "head dim 128": Shape(2, 40, 2, 128, 128),
}


def _with_bonus(function: Callable[..., tuple[torch.Tensor, torch.Tensor | None]]) -> SequenceOp:
    """The function with a bonus of its own, because it is no sequence."""

    @wraps(function)
    def call(r: torch.Tensor, *others: Any, **options: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        heads, key_dim = r.shape[2:]
        u = torch.linspace(-1, 1, heads * key_dim, dtype=r.dtype, device=r.device).view(heads, key_dim)
        return function(r, *others, u=u, **options)

    return SequenceOp(call, partial(draw, SEQUENCES))


SPEC = Spec(
    name="rwkv6",
    paper="2404.05892",
    functions=("chunk_rwkv6", "fused_recurrent_rwkv6"),
    backends=("triton", "torch", "reference"),
    cases=(
        *sequence_cases(chunk_rwkv6, OPERANDS, CHUNK_SHAPES),
        *sequence_cases(fused_recurrent_rwkv6, OPERANDS, RECURRENT_SHAPES),
    ),
    cost=cost,
    sequence_ops=(
        _with_bonus(chunk_rwkv6),
        _with_bonus(fused_recurrent_rwkv6),
    ),
    features=frozenset({"state", "packed", "compile", "backward"}),
)


def aot_cases() -> Iterator[tuple[str, Callable[[], None]]]:
    """One call of every kernel for each tile that ships, to be compiled without a GPU."""
    shape = Shape(1, 128, 2, 128, 128)
    for dtype in (torch.bfloat16, torch.float32):
        title = f"{dtype} 128".removeprefix("torch.")
        for function in (chunk_rwkv6, fused_recurrent_rwkv6):
            yield f"{function.__name__} {title}", partial(launch, title, shape, function, OPERANDS, dtype)
