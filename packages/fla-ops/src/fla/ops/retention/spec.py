"""Cases that retention must get right, and what it costs."""

from __future__ import annotations

from functools import partial

from fla.ops._shared.cases import Shape, draw, sequence_cases
from fla.ops.retention.api import chunk_retention, fused_recurrent_retention, parallel_retention
from fla.ops.simple_gla.spec import cost
from fla.utils.spec import SequenceOp, Spec

OPERANDS = {"q": "B T H K", "k": "B T H K", "v": "B T HV V"}
STATE = {"initial_state": "N HV K V"}
V_FIRST = {"state_v_first": True}

CHUNK_SHAPES = {
    "one chunk and a bit": Shape(2, 67, 3, 8, 24),
    "packed, grouped": Shape(1, 90, 1, 16, 16, HV=2, lengths=(1, 31, 0, 40, 18)),
    "state with V first": Shape(1, 40, 2, 16, 8, options=V_FIRST),
    "heads of RetNet": Shape(1, 300, 8, 128, 256),
}
RECURRENT_SHAPES = {
    "one step": Shape(3, 1, 2, 16, 16),
    "reversed": Shape(2, 20, 2, 17, 9, options={"reverse": True}),
    "packed, V first": Shape(1, 30, 2, 16, 8, lengths=(10, 20), options=V_FIRST),
}
PARALLEL_SHAPES = {
    "matrix": Shape(2, 70, 2, 16, 8, options={"output_attentions": True}),
    "packed": Shape(1, 70, 2, 16, 8, lengths=(30, 40)),
}

SPEC = Spec(
    name="retention",
    paper="2307.08621",
    functions=("chunk_retention", "fused_recurrent_retention", "parallel_retention"),
    backends=("triton", "torch", "reference"),
    cases=(
        *sequence_cases(chunk_retention, {**OPERANDS, **STATE}, CHUNK_SHAPES),
        *sequence_cases(fused_recurrent_retention, {**OPERANDS, **STATE}, RECURRENT_SHAPES),
        *sequence_cases(parallel_retention, OPERANDS, PARALLEL_SHAPES),
    ),
    cost=cost,
    sequence_ops=(
        SequenceOp(chunk_retention, partial(draw, OPERANDS)),
        SequenceOp(fused_recurrent_retention, partial(draw, OPERANDS)),
    ),
    features=frozenset({"state", "packed", "compile", "backward"}),
)
