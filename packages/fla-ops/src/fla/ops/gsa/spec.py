"""Cases that gated slot attention must get right, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from fla.ops._shared.cases import Shape, draw, launch, sequence_cases
from fla.ops.gla.spec import AOT_SPILL_ALLOWANCE as AOT_SPILL_ALLOWANCE
from fla.ops.gsa.api import chunk_gsa, fused_recurrent_gsa
from fla.utils.spec import Cost, SequenceOp, Sizes, Spec

SEQUENCES = {"q": "B T H K", "k": "B T H K", "v": "B T H V", "s": "B T H M", "g": "B T H M -"}
STATE = {"keys": "N H K M", "values": "N H M V"}

CHUNK_SHAPES = {
    "one step": Shape(1, 1, 8, 4, 8, M=8),
    "one chunk and a bit": Shape(2, 67, 2, 16, 24, M=8, decay=1.0),
    "grouped queries": Shape(2, 40, 1, 16, 8, HV=2, decay=1.0),
    "packed": Shape(1, 90, 2, 16, 16, lengths=(1, 31, 0, 40, 18)),
    "normalised writes": Shape(1, 70, 2, 16, 16, without=("g",)),
    "normalised writes, packed": Shape(1, 70, 1, 16, 8, M=4, lengths=(30, 40), without=("g",)),
    "strong decay": Shape(1, 70, 1, 16, 16, decay=30.0),
    "head dim 64": Shape(2, 130, 2, 64, 64, M=64, decay=0.3),
    "head dim 128": Shape(2, 300, 2, 128, 128, M=64, decay=1.0),
    "more slots than channels": Shape(1, 130, 2, 48, 72, M=128, decay=1.0),
}
RECURRENT_SHAPES = {
    "one step": Shape(3, 1, 2, 16, 16),
    "reversed, grouped queries": Shape(2, 20, 1, 16, 8, HV=2, decay=1.0, options={"reverse": True}),
    "packed": Shape(1, 30, 2, 16, 8, lengths=(10, 20)),
    "normalised writes, packed, reversed": Shape(
        1, 30, 1, 8, 8, M=8, lengths=(10, 0, 20), without=("g",), options={"reverse": True}
    ),
    "head dim 128": Shape(2, 40, 2, 128, 128, M=64),
}


def _with_state(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with the parts of its state as arguments of their own."""

    def call(keys: torch.Tensor, values: torch.Tensor, **arguments: Any) -> Any:
        log_sum = () if "g" in arguments else (keys.mean(-2),)
        return function(**arguments, initial_state=(keys, values, *log_sum), output_final_state=True)

    call.__name__ = function.__name__
    return call


_chunk, _recurrent = _with_state(chunk_gsa), _with_state(fused_recurrent_gsa)
OPERANDS = {**SEQUENCES, "q": "B T HV K", **STATE}


def cost(sizes: Sizes, element: int, chunk: int = 64) -> Cost:
    """Every input read once and every output written once; the chunked algorithm's matrix products."""
    heads = sizes["B"] * sizes["T"] * sizes["H"]
    k, v, m = sizes["K"], sizes["V"], sizes["M"]
    return Cost(
        bytes_fwd=heads * element * (2 * k + 2 * v + 2 * m),
        bytes_bwd=heads * element * (4 * k + 3 * v + 4 * m),
        flops_fwd=heads * (2 * chunk * (k + v + 2 * m) + 4 * m * (k + v)),
        flops_bwd=heads * (5 * chunk * (k + v + 2 * m) + 10 * m * (k + v)),
    )


SPEC = Spec(
    name="gsa",
    paper="2409.07146",
    functions=("chunk_gsa", "fused_recurrent_gsa"),
    backends=("triton", "torch", "reference"),
    cases=(
        *sequence_cases(_chunk, OPERANDS, CHUNK_SHAPES),
        *sequence_cases(_recurrent, OPERANDS, RECURRENT_SHAPES),
    ),
    cost=cost,
    sequence_ops=(
        SequenceOp(chunk_gsa, partial(draw, SEQUENCES)),
        SequenceOp(fused_recurrent_gsa, partial(draw, SEQUENCES)),
    ),
    features=frozenset({"state", "packed", "compile", "backward"}),
)


def aot_cases() -> Iterator[tuple[str, Callable[[], None]]]:
    """One call of every kernel for each tile that ships, to be compiled without a GPU."""
    for dtype, lengths in ((torch.bfloat16, ()), (torch.float32, (100, 28))):
        shape = Shape(1, 128, 2, 128, 128, M=64, lengths=lengths)
        title = f"{dtype} 128, 64 slots{', packed' if lengths else ''}".removeprefix("torch.")
        for function in (_chunk, _recurrent):
            yield f"{function.__name__} {title}", partial(launch, title, shape, function, OPERANDS, dtype)
