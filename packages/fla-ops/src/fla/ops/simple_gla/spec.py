"""Cases that linear attention with scalar decay must get right, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from fla.ops._shared.cases import Shape, draw, launch, sequence_cases
from fla.ops.simple_gla.api import chunk_simple_gla, fused_recurrent_simple_gla, parallel_simple_gla
from fla.utils.spec import Cost, SequenceOp, Sizes, Spec

QKV = {"q": "B T H K", "k": "B T H K", "v": "B T HV V"}
OPERANDS = {**QKV, "g": "B T HV -"}
STATE = {"initial_state": "N HV K V"}
CONSTANT = {"g_gamma": "HV -"}
V_FIRST = {"state_v_first": True}

CHUNK_SHAPES = {
    "one step": Shape(1, 1, 8, 4, 8),
    "one chunk and a bit": Shape(2, 67, 2, 16, 24),
    "odd head dims": Shape(1, 75, 2, 17, 33, decay=1.0),
    "packed": Shape(1, 90, 2, 16, 16, lengths=(1, 31, 0, 40, 18), decay=1.0),
    "grouped heads": Shape(1, 70, 2, 16, 16, HV=4, decay=1.0),
    "state with V first": Shape(1, 40, 1, 16, 8, options=V_FIRST),
    "strong decay": Shape(1, 70, 1, 16, 16, decay=30.0),
    "no decay": Shape(1, 70, 1, 16, 16, without=("g",)),
    "head dim 64": Shape(2, 200, 3, 64, 64),
    "head dim 128": Shape(2, 300, 2, 128, 128, decay=1.0),
    "head dim 128, two chunks": Shape(2, 100, 2, 128, 128, decay=1.0),
    "head dim 128, no decay": Shape(2, 300, 2, 128, 128, without=("g",)),
    "head dim 128, packed, grouped": Shape(1, 333, 1, 128, 128, lengths=(64, 1, 200, 68), HV=2),
    "head dim 256": Shape(1, 130, 2, 256, 256, decay=0.2),
    "keys wider than values": Shape(1, 130, 2, 200, 72, decay=1.0),
    "values wider than keys": Shape(1, 130, 2, 48, 160, decay=1.0),
    "many chunks": Shape(2, 700, 4, 64, 128),
}
CONSTANT_SHAPES = {
    "decay per head": Shape(1, 70, 6, 16, 16, without=("g",)),
    "decay per head and step, packed": Shape(1, 70, 6, 16, 16, lengths=(66, 4), decay=1.0),
}
RECURRENT_SHAPES = {
    "one step": Shape(3, 1, 2, 16, 16),
    "no decay": Shape(1, 9, 2, 8, 8, without=("g",)),
    "reversed": Shape(2, 20, 2, 17, 9, decay=1.0, options={"reverse": True}),
    "packed, V first, grouped": Shape(1, 30, 1, 16, 8, HV=2, lengths=(10, 20), options=V_FIRST),
    "head dim 128": Shape(2, 40, 2, 128, 128),
}
PARALLEL_SHAPES = {
    "matrix": Shape(2, 70, 2, 16, 8, decay=1.0, options={"output_attentions": True}),
    "packed": Shape(1, 70, 2, 16, 8, lengths=(30, 40)),
}


def cost(sizes: Sizes, element: int, chunk: int = 64) -> Cost:
    """Every input read once and every output written once; the chunked algorithm's matrix products."""
    heads = sizes["B"] * sizes["T"] * sizes["H"]
    k, v = sizes["K"], sizes["V"]
    return Cost(
        bytes_fwd=heads * (element * (2 * k + 2 * v) + 4),
        bytes_bwd=heads * (element * (4 * k + 3 * v) + 8),
        flops_fwd=heads * (2 * chunk * (k + v) + 4 * k * v),
        flops_bwd=heads * (5 * chunk * (k + v) + 10 * k * v),
    )


SPEC = Spec(
    name="simple_gla",
    paper="2405.21060",
    functions=("chunk_simple_gla", "fused_recurrent_simple_gla", "parallel_simple_gla"),
    backends=("triton", "torch", "reference"),
    cases=(
        *sequence_cases(chunk_simple_gla, {**OPERANDS, **STATE}, CHUNK_SHAPES),
        *sequence_cases(chunk_simple_gla, {**OPERANDS, **CONSTANT, **STATE}, CONSTANT_SHAPES),
        *sequence_cases(fused_recurrent_simple_gla, {**OPERANDS, **STATE}, RECURRENT_SHAPES),
        *sequence_cases(fused_recurrent_simple_gla, {**OPERANDS, **CONSTANT, **STATE}, CONSTANT_SHAPES),
        *sequence_cases(parallel_simple_gla, {**OPERANDS, **CONSTANT}, PARALLEL_SHAPES),
    ),
    cost=cost,
    sequence_ops=(
        SequenceOp(chunk_simple_gla, partial(draw, OPERANDS)),
        SequenceOp(fused_recurrent_simple_gla, partial(draw, OPERANDS)),
    ),
    features=frozenset({"state", "packed", "compile", "backward"}),
)


#: Heads that share keys add to gradients that stay in registers; a walk keeps the state there as well.
AOT_SPILL_ALLOWANCE = {"scalar_decay_key_bwd_kernel": 592, "scalar_decay_walk_kernel": 288}


def aot_cases() -> Iterator[tuple[str, Callable[[], None]]]:
    """One call of every kernel for each tile that ships, to be compiled without a GPU."""
    operands, constant = {**OPERANDS, **STATE}, {**QKV, **STATE}
    for dtype, dim, lengths, without, function in (
        (torch.bfloat16, 64, (), (), chunk_simple_gla),
        (torch.bfloat16, 128, (), (), chunk_simple_gla),
        (torch.bfloat16, 128, (100, 28), (), chunk_simple_gla),
        (torch.bfloat16, 128, (), ("g",), chunk_simple_gla),
        (torch.bfloat16, 128, (), (), _chunk_constant),
        (torch.bfloat16, 256, (), (), chunk_simple_gla),
        (torch.float32, 128, (), (), chunk_simple_gla),
        (torch.float32, 128, (), ("g",), chunk_simple_gla),
        (torch.bfloat16, 128, (), (), fused_recurrent_simple_gla),
        (torch.float32, 128, (100, 28), (), fused_recurrent_simple_gla),
    ):
        shape = Shape(1, sum(lengths) or 256, 2, dim, dim, lengths=lengths, without=without)
        wanted = constant if function is _chunk_constant else operands
        title = f"{dtype} {dim}{' packed' if lengths else ''}{' no decay' if without else ''}".removeprefix("torch.")
        yield f"{function.__name__} {title}", partial(launch, title, shape, function, wanted, dtype)


def _chunk_constant(q: torch.Tensor, **others: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """With a decay per head that needs no gradient, as retention has it."""
    return chunk_simple_gla(q, g_gamma=torch.full((q.shape[2],), -0.1), **others)
