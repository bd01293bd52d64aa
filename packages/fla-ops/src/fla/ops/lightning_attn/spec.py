"""Cases that lightning attention must get right, and what it costs."""

from __future__ import annotations

from functools import partial, update_wrapper

from fla.ops._shared.cases import Shape, draw, sequence_cases
from fla.ops.lightning_attn.api import chunk_lightning_attn, fused_recurrent_lightning_attn
from fla.ops.retention.spec import OPERANDS, STATE
from fla.ops.simple_gla.spec import cost
from fla.utils.spec import SequenceOp, Spec

FIRST = {"layer_idx": 0, "num_layers": 24}
MIDDLE = {"layer_idx": 1, "num_layers": 3}

CHUNK_SHAPES = {
    "first layer": Shape(2, 67, 3, 8, 24, options=FIRST),
    "packed, grouped": Shape(1, 90, 1, 16, 16, HV=2, lengths=(1, 31, 0, 40, 18), options=MIDDLE),
    "head dim 128": Shape(1, 300, 4, 128, 128, options=MIDDLE),
}
RECURRENT_SHAPES = {
    "one step": Shape(3, 1, 2, 16, 16, options=MIDDLE),
    "reversed, packed": Shape(1, 30, 2, 17, 9, lengths=(10, 20), options={**FIRST, "reverse": True}),
}

SPEC = Spec(
    name="lightning_attn",
    paper="2405.17381",
    functions=("chunk_lightning_attn", "fused_recurrent_lightning_attn"),
    backends=("triton", "torch", "reference"),
    cases=(
        *sequence_cases(chunk_lightning_attn, {**OPERANDS, **STATE}, CHUNK_SHAPES),
        *sequence_cases(fused_recurrent_lightning_attn, {**OPERANDS, **STATE}, RECURRENT_SHAPES),
    ),
    cost=cost,
    sequence_ops=tuple(
        SequenceOp(update_wrapper(partial(function, layer_idx=1, num_layers=3), function), partial(draw, OPERANDS))
        for function in (chunk_lightning_attn, fused_recurrent_lightning_attn)
    ),
    features=frozenset({"state", "packed", "compile", "backward"}),
)
