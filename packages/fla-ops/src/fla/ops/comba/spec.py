"""Cases that Comba must get right, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from fla.ops._shared.cases import Shape, draw, launch, sequence_cases
from fla.ops.comba.api import chunk_comba, fused_recurrent_comba
from fla.ops.gated_delta_rule.spec import OPERANDS as WITHOUT_P, RAW as RAW_WITHOUT_P, STATE, cost as gated_cost
from fla.utils.spec import Cost, SequenceOp, Sizes, Spec

OPERANDS = {**WITHOUT_P, "p": "B T H K |"}
CALL = {**OPERANDS, **STATE}
RAW = {**RAW_WITHOUT_P, "p": "B T H K", "g": "B T HV -", "beta": "B T HV +"}

# With few heads the gradient of g may cancel by chance, and then its rounding errors stand out.
CHUNK_SHAPES = {
    "one step": Shape(1, 1, 8, 4, 8),
    "one chunk and a bit": Shape(2, 67, 2, 16, 24),
    "odd head dims": Shape(1, 75, 2, 17, 33, decay=1.0),
    "packed": Shape(1, 90, 2, 16, 16, lengths=(1, 31, 0, 40, 18), decay=1.0),
    "grouped heads": Shape(1, 70, 2, 16, 16, HV=4, decay=1.0),
    "mild decay": Shape(2, 40, 5, 16, 16, decay=1 / 256),
    "strong decay": Shape(1, 70, 6, 16, 16, decay=30.0),
    "no beta": Shape(1, 40, 1, 16, 16, decay=1.0, without=("beta",)),
    "head dim 128": Shape(2, 300, 2, 128, 128, decay=1.0),
    "head dim 128, packed, grouped": Shape(1, 333, 1, 128, 128, lengths=(64, 1, 200, 68), HV=2),
    "head dim 256": Shape(2, 130, 4, 256, 256, decay=0.2),
    "many chunks": Shape(2, 700, 4, 64, 128),
}
RECURRENT_SHAPES = {
    "one step": Shape(3, 1, 2, 16, 16),
    "no beta": Shape(1, 9, 2, 8, 8, without=("beta",)),
    "packed, grouped": Shape(1, 40, 1, 8, 8, lengths=(1, 15, 0, 24), HV=2),
    "strong decay": Shape(2, 10, 6, 8, 8, decay=30.0),
    "head dim 256": Shape(2, 20, 4, 256, 200),
}
NORM_SHAPES = {"norms in the op": Shape(1, 24, 2, 16, 16, options={"use_qk_l2norm_in_kernel": True})}


def cost(sizes: Sizes, element: int, chunk: int = 64) -> Cost:
    """That of the gated delta rule, and p with its gradient; the same matrix products."""
    gated = gated_cost(sizes, element, chunk)
    p = sizes["B"] * sizes["T"] * sizes["H"] * sizes["K"] * element
    return Cost(gated.bytes_fwd + p, gated.bytes_bwd + 2 * p, gated.flops_fwd, gated.flops_bwd)


SPEC = Spec(
    name="comba",
    paper="2506.02475",
    functions=("chunk_comba", "fused_recurrent_comba"),
    backends=("triton", "torch", "reference"),
    cases=(
        *sequence_cases(chunk_comba, CALL, CHUNK_SHAPES),
        *sequence_cases(chunk_comba, RAW, NORM_SHAPES),
        *sequence_cases(fused_recurrent_comba, CALL, RECURRENT_SHAPES),
        *sequence_cases(fused_recurrent_comba, RAW, NORM_SHAPES),
    ),
    cost=cost,
    sequence_ops=(
        SequenceOp(chunk_comba, partial(draw, OPERANDS)),
        SequenceOp(fused_recurrent_comba, partial(draw, OPERANDS)),
    ),
    features=frozenset({"state", "packed", "compile", "backward"}),
)

#: An erase key of its own has other decays than the query, and with them one more tile of factors.
AOT_SPILL_ALLOWANCE = {"delta_walk_fwd_kernel": 144, "delta_walk_bwd_kernel": 352, "delta_key_bwd_kernel": 160}


def aot_cases() -> Iterator[tuple[str, Callable[[], None]]]:
    """A call of each form; the kernels are those of the gated delta rule, with an erase key."""
    for function in (chunk_comba, fused_recurrent_comba):
        title, shape = "bfloat16 128", Shape(1, 128, 2, 128, 128)
        yield f"{function.__name__} {title}", partial(launch, title, shape, function, CALL, torch.bfloat16)
