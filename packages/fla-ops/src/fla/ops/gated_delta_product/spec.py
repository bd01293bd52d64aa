"""Cases that the gated delta product must get right, and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import torch

from fla.ops._engines.delta.options import write_strength
from fla.ops._shared.cases import Shape, draw, sequence_cases
from fla.ops.gated_delta_product.api import chunk_gated_delta_product, fused_recurrent_gated_delta_product
from fla.ops.gated_delta_rule import spec as gated_delta_rule
from fla.utils.spec import Cost, SequenceOp, Sizes, Spec

Results = tuple[torch.Tensor, torch.Tensor | None]

#: M is the number of sub-steps.
QKV = {"q": "B T H K", "k": "B T M H K |", "v": "B T M HV V"}
OPERANDS = {**QKV, "g": "B T HV -", "beta": "B T M HV +"}
STATE = {"initial_state": "N HV K V"}
RAW = {**OPERANDS, "k": "B T M H K", "beta": "B T M HV", **STATE}
NORMS = {"use_qk_l2norm_in_kernel": True}

CHUNK_SHAPES = {
    "one token": Shape(3, 1, 2, 4, 8, M=2),
    "one chunk and a bit": Shape(2, 35, 2, 16, 24, M=2),
    "one sub-step": Shape(1, 70, 1, 16, 16, M=1, decay=1.0),
    "odd head dims, three sub-steps": Shape(1, 30, 2, 17, 33, M=3, decay=1.0),
    "packed, grouped": Shape(1, 45, 1, 16, 16, lengths=(1, 15, 0, 20, 9), M=2, HV=2, decay=1.0),
    "strong decay": Shape(1, 35, 1, 16, 16, M=2, decay=30.0),
    "no decay": Shape(1, 35, 1, 16, 16, M=2, without=("g",), options={"g": None}),
    "head dim 128": Shape(1, 150, 2, 128, 128, M=2),
    "head dim 256, four sub-steps": Shape(1, 40, 2, 256, 256, M=4, decay=0.2),
    "many chunks": Shape(2, 350, 4, 64, 128, M=2),
}
RECURRENT_SHAPES = {
    "one token": Shape(3, 1, 2, 16, 16, M=2),
    "few steps": Shape(1, 5, 1, 16, 16, M=3, HV=2),
    "packed": Shape(1, 20, 2, 8, 8, lengths=(1, 7, 12), M=2, decay=1.0),
    "no decay": Shape(1, 9, 2, 8, 8, M=2, without=("g",), options={"g": None}),
}


def per_token(function: Callable[..., Results]) -> Callable[..., Results]:
    """The function on operands whose second dimension counts tokens, with the sub-steps in the third."""

    @wraps(function)
    def over_tokens(k: torch.Tensor, v: torch.Tensor, beta: torch.Tensor, **others: Any) -> Results:
        k_, v_, beta_ = (x.flatten(1, 2) for x in (k, v, beta))
        return function(k=k_, v=v_, beta=beta_, num_householder=k.shape[2], **others)

    return over_tokens


chunk = per_token(chunk_gated_delta_product)
fused_recurrent = per_token(fused_recurrent_gated_delta_product)


def chunk_near_two(beta: torch.Tensor, **others: Any) -> Results:
    """With write strengths close to 2, so that every sub-step reflects."""
    return chunk(beta=write_strength(beta + 5.0, use_sigmoid=True, allow_neg_eigval=True), **others)


def cost(sizes: Sizes, element: int) -> Cost:
    """That of the gated delta rule on all sub-steps, with queries and outputs for each token only."""
    n, k, v = sizes.get("M", 2), sizes["K"], sizes["V"]
    heads = sizes["B"] * sizes["T"] * sizes.get("HV", sizes["H"])
    steps = gated_delta_rule.cost({**sizes, "T": sizes["T"] * n}, element)
    unread = heads * (n - 1) * (k + v)
    return Cost(
        bytes_fwd=steps.bytes_fwd - element * unread,
        bytes_bwd=steps.bytes_bwd - 2 * element * unread,
        flops_fwd=steps.flops_fwd,
        flops_bwd=steps.flops_bwd,
    )


SPEC = Spec(
    name="gated_delta_product",
    paper="2502.10297",
    functions=("chunk_gated_delta_product", "fused_recurrent_gated_delta_product"),
    backends=("triton", "torch", "reference"),
    cases=(
        *sequence_cases(chunk, {**OPERANDS, **STATE}, CHUNK_SHAPES),
        *sequence_cases(chunk_near_two, RAW, {"beta near 2": Shape(1, 12, 2, 16, 16, M=2, options=NORMS)}),
        *sequence_cases(fused_recurrent, {**OPERANDS, **STATE}, RECURRENT_SHAPES),
    ),
    cost=cost,
    sequence_ops=(
        SequenceOp(chunk, partial(draw, OPERANDS)),
        SequenceOp(fused_recurrent, partial(draw, OPERANDS)),
    ),
    features=frozenset({"state", "packed", "compile", "backward"}),
    timed_sizes={"M": 2},
)
