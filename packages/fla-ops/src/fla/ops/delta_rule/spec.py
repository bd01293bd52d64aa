"""Cases that the delta rule must get right, and what it costs."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from fla.ops._engines.delta.options import write_strength
from fla.ops._shared.cases import Shape, draw, sequence_cases
from fla.ops.delta_rule.api import chunk_delta_rule, fused_recurrent_delta_rule, parallel_delta_rule
from fla.ops.gated_delta_rule.spec import cost
from fla.utils.spec import SequenceOp, Spec

QKV = {"q": "B T H K", "k": "B T H K |", "v": "B T HV V"}
OPERANDS = {**QKV, "beta": "B T HV +"}
STATE = {"initial_state": "N HV K V"}
CHUNK = {**OPERANDS, **STATE}
RAW_KEYS = {**CHUNK, "k": "B T H K"}
RAW_BETA = {**CHUNK, "beta": "B T HV"}
BETA_PER_CHANNEL = {**CHUNK, "beta": "B T HV V +"}

CHUNK_SHAPES = {
    "one step": Shape(1, 1, 8, 4, 8),
    "one chunk and a bit": Shape(2, 67, 2, 16, 24),
    "odd head dims": Shape(1, 75, 2, 17, 33),
    "packed, grouped": Shape(1, 90, 1, 16, 16, lengths=(1, 31, 0, 40, 18), HV=2),
    "head dim 128": Shape(2, 300, 2, 128, 128),
    "head dim 256": Shape(1, 130, 2, 256, 200),
    "many chunks": Shape(2, 700, 4, 64, 128),
}
RAW_KEY_SHAPES = {
    "unnormalised keys": Shape(1, 6, 2, 8, 8),
    "norms in the op": Shape(1, 70, 2, 16, 16, options={"use_qk_l2norm_in_kernel": True}),
}
NEAR_TWO, NEAR_ZERO, ONE_KEY = {"logit": 5.0}, {"logit": -9.0}, {"one_key": True}
#: Errors grow with the steps that a chunk corrects in a row. float64 has no more room for that than for rounding, so
#: what a CPU runs is short; a GPU, which has no float64, runs the long ones. The gradient of one key errs by one
#: number a head (2.6e-6 to 6.1e-5 of it over 16 heads in float32): many heads even out the chance of each.
HARD_SHAPES = {
    "beta near 2": Shape(1, 24, 2, 16, 16, options=NEAR_TWO),
    "beta near 0": Shape(1, 70, 2, 16, 16, options=NEAR_ZERO),
    "one key": Shape(1, 10, 2, 16, 16, options=ONE_KEY),
    "one key, beta near 2": Shape(1, 6, 2, 16, 16, options={**NEAR_TWO, **ONE_KEY}),
    "long, beta near 2": Shape(1, 1500, 2, 128, 128, options=NEAR_TWO),
    "long, one key": Shape(1, 1500, 16, 128, 128, options=ONE_KEY),
    "long, one key, beta near 2": Shape(1, 1500, 16, 128, 128, options={**NEAR_TWO, **ONE_KEY}),
}
RECURRENT_SHAPES = {
    "one step": Shape(3, 1, 2, 16, 16),
    "no beta": Shape(1, 9, 2, 8, 8, without=("beta",)),
    "packed, grouped": Shape(1, 40, 1, 8, 8, lengths=(1, 15, 0, 24), HV=2),
    "head dim 256": Shape(1, 20, 1, 256, 200),
}
PARALLEL_SHAPES = {
    "matrix": Shape(2, 70, 2, 16, 8, HV=4, options={"output_attentions": True}),
    "packed": Shape(1, 70, 2, 16, 8, lengths=(30, 40)),
}


def chunk_delta_rule_hard(
    k: torch.Tensor, beta: torch.Tensor, logit: float = 0.0, one_key: bool = False, **others: Any
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """With write strengths of up to 2 at that logit, and all keys the first where asked for."""
    beta = write_strength(beta + logit, use_sigmoid=True, allow_neg_eigval=True)
    return chunk_delta_rule(k=k[:, :1].expand_as(k) if one_key else k, beta=beta, **others)


SPEC = Spec(
    name="delta_rule",
    paper="2406.06484",
    functions=("chunk_delta_rule", "fused_recurrent_delta_rule", "parallel_delta_rule"),
    backends=("triton", "torch", "reference"),
    cases=(
        *sequence_cases(chunk_delta_rule, CHUNK, CHUNK_SHAPES),
        *sequence_cases(chunk_delta_rule, RAW_KEYS, RAW_KEY_SHAPES),
        *sequence_cases(chunk_delta_rule_hard, RAW_BETA, HARD_SHAPES),
        *sequence_cases(fused_recurrent_delta_rule, CHUNK, RECURRENT_SHAPES),
        *sequence_cases(fused_recurrent_delta_rule, RAW_KEYS, RAW_KEY_SHAPES),
        *sequence_cases(
            fused_recurrent_delta_rule, BETA_PER_CHANNEL, {"beta per channel": Shape(1, 20, 1, 16, 16, HV=2)}
        ),
        *sequence_cases(parallel_delta_rule, OPERANDS, PARALLEL_SHAPES),
    ),
    cost=cost,
    sequence_ops=(
        SequenceOp(chunk_delta_rule, partial(draw, OPERANDS)),
        SequenceOp(fused_recurrent_delta_rule, partial(draw, OPERANDS)),
    ),
    features=frozenset({"state", "packed", "compile", "backward"}),
)
