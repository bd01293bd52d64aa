"""Cases that the generalized delta rule must get right, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial, wraps
from typing import Any

import torch

from fla.ops._shared.cases import Shape, draw, launch, sequence_cases
from fla.ops.generalized_delta_rule.api import (
    chunk_dplr_delta_rule,
    chunk_iplr_delta_rule,
    fused_recurrent_dplr_delta_rule,
    fused_recurrent_iplr_delta_rule,
)
from fla.utils.spec import Cost, SequenceOp, Sizes, Spec

#: ``kk`` are unit vectors and ``strength`` what is taken away of the state there: a = -kk and b = strength * kk keep
#: the state bounded, whatever the decay.
BOUNDED = {"q": "B T H K", "k": "B T H K", "v": "B T H V", "kk": "B T H K |", "strength": "B T H K +"}
STATE = {"initial_state": "N H K V"}
DPLR = {**BOUNDED, "gk": "B T H K -", **STATE}
IPLR = {**BOUNDED, **STATE}
FREE = {"q": "B T H K", "k": "B T H K", "v": "B T H V", "a": "B T H K", "b": "B T H K", "gk": "B T H K -", **STATE}

REVERSE = {"reverse": True}

CHUNK_SHAPES = {
    "one step": Shape(1, 1, 8, 4, 8),
    "one chunk and a bit": Shape(2, 67, 2, 16, 24),
    "odd head dims": Shape(1, 75, 2, 17, 33, decay=1.0),
    "packed": Shape(1, 90, 2, 16, 16, lengths=(1, 31, 0, 40, 18), decay=1.0),
    "strong decay": Shape(1, 70, 1, 16, 16, decay=30.0),
    "no decay": Shape(1, 70, 2, 16, 16, without=("gk",), options={"gk": None}),
    "head dim 64": Shape(2, 200, 3, 64, 64),
    "head dim 128": Shape(2, 300, 2, 128, 128, decay=1.0),
    "head dim 128, packed": Shape(1, 333, 2, 128, 128, lengths=(64, 1, 200, 68)),
    "head dim 256": Shape(1, 130, 2, 256, 256, decay=0.2),
    "keys wider than values": Shape(1, 130, 2, 200, 72, decay=1.0),
    "values wider than keys": Shape(1, 130, 2, 48, 160, decay=1.0),
    "many chunks": Shape(2, 700, 4, 64, 128),
}
NO_DECAY_SHAPES = {
    "one step": Shape(2, 1, 2, 8, 8),
    "one chunk and a bit": Shape(1, 67, 2, 16, 8),
    "head dim 128, packed": Shape(1, 333, 2, 128, 128, lengths=(64, 1, 200, 68)),
}
RECURRENT_SHAPES = {
    "one step": Shape(3, 1, 2, 16, 16),
    "few steps": Shape(2, 11, 2, 17, 9, decay=1.0),
    "packed": Shape(1, 40, 2, 8, 8, lengths=(1, 15, 0, 24), decay=1.0),
    "packed, reversed": Shape(1, 40, 2, 8, 8, lengths=(1, 15, 24), decay=1.0, options=REVERSE),
    "strong decay": Shape(1, 12, 1, 8, 8, decay=30.0),
    "head dim 128": Shape(2, 40, 2, 128, 128),
    "head dim 256": Shape(1, 20, 1, 256, 200),
}
#: Nothing keeps these states bounded but that a b^T is small: the norms of a and b are about sqrt(K) / 4.
FREE_SHAPES = {
    "any a and b": Shape(2, 70, 2, 16, 8, decay=1.0),
    "any a and b, head dim 128": Shape(1, 150, 2, 128, 128, decay=1.0),
}
FREE_SCALE = 1 / 4


def bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of ``kk`` and ``strength`` instead of a and b."""

    @wraps(function)
    def call(*, kk: torch.Tensor, strength: torch.Tensor, **others: Any) -> Any:
        return function(a=-kk, b=kk * strength, **others)

    return call


def scaled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with smaller a and b, such that neither the transition nor the state grows with K."""

    @wraps(function)
    def call(*, a: torch.Tensor, b: torch.Tensor, **others: Any) -> Any:
        factor = FREE_SCALE * (16 / a.shape[-1]) ** 0.5
        return function(a=a * factor, b=b * factor, **others)

    return call


def cost(sizes: Sizes, element: int, chunk: int = 16) -> Cost:
    """Every input read once and every output written once; the chunked algorithm's matrix products."""
    heads = sizes["B"] * sizes["T"] * sizes["H"]
    k, v = sizes["K"], sizes["V"]
    return Cost(
        bytes_fwd=heads * element * (5 * k + 2 * v),
        bytes_bwd=heads * element * (10 * k + 3 * v),
        flops_fwd=heads * (8 * chunk * (k + v) + 8 * k * v),
        flops_bwd=heads * (28 * chunk * (k + v) + 30 * k * v),
    )


SPEC = Spec(
    name="generalized_delta_rule",
    paper="2503.14456",
    functions=(
        "chunk_dplr_delta_rule",
        "chunk_iplr_delta_rule",
        "fused_recurrent_dplr_delta_rule",
        "fused_recurrent_iplr_delta_rule",
    ),
    backends=("triton", "torch", "reference"),
    cases=(
        *sequence_cases(bounded(chunk_dplr_delta_rule), DPLR, CHUNK_SHAPES),
        *sequence_cases(scaled(chunk_dplr_delta_rule), FREE, FREE_SHAPES),
        *sequence_cases(bounded(chunk_iplr_delta_rule), IPLR, NO_DECAY_SHAPES),
        *sequence_cases(bounded(fused_recurrent_dplr_delta_rule), DPLR, RECURRENT_SHAPES),
        *sequence_cases(
            scaled(fused_recurrent_dplr_delta_rule), FREE, {"any a and b": Shape(1, 20, 2, 16, 8, options=REVERSE)}
        ),
        *sequence_cases(bounded(fused_recurrent_iplr_delta_rule), IPLR, {"few steps": Shape(1, 9, 2, 8, 8)}),
    ),
    cost=cost,
    sequence_ops=(
        SequenceOp(bounded(chunk_dplr_delta_rule), partial(draw, {**BOUNDED, "gk": DPLR["gk"]})),
        SequenceOp(bounded(chunk_iplr_delta_rule), partial(draw, BOUNDED)),
        SequenceOp(bounded(fused_recurrent_dplr_delta_rule), partial(draw, {**BOUNDED, "gk": DPLR["gk"]})),
    ),
    features=frozenset({"state", "packed", "compile", "backward"}),
)


#: The walk holds the state beside two operands of a chunk, and the gradients of four operands are one kernel's.
AOT_SPILL_ALLOWANCE = {
    "low_rank_pairs_fwd_kernel": 1088,
    "low_rank_walk_fwd_kernel": 448,
    "low_rank_walk_bwd_kernel": 320,
    "low_rank_key_bwd_kernel": 272,
}


def aot_cases() -> Iterator[tuple[str, Callable[[], None]]]:
    """One call of every kernel for each tile that ships, to be compiled without a GPU."""
    for dtype, dim, lengths, function in (
        (torch.bfloat16, 64, (), chunk_dplr_delta_rule),
        (torch.bfloat16, 128, (), chunk_dplr_delta_rule),
        (torch.bfloat16, 128, (100, 28), chunk_dplr_delta_rule),
        (torch.bfloat16, 256, (), chunk_dplr_delta_rule),
        (torch.float32, 128, (), chunk_dplr_delta_rule),
        (torch.bfloat16, 64, (), fused_recurrent_dplr_delta_rule),
        (torch.bfloat16, 128, (), fused_recurrent_dplr_delta_rule),
        (torch.float32, 128, (100, 28), fused_recurrent_dplr_delta_rule),
    ):
        shape = Shape(1, 128, 2, dim, dim, lengths=lengths)
        title = f"{dtype} {dim}{' packed' if lengths else ''}".removeprefix("torch.")
        yield f"{function.__name__} {title}", partial(launch, title, shape, function, FREE, dtype)
    shape = Shape(1, 128, 2, 128, 128)
    function = bounded(fused_recurrent_iplr_delta_rule)
    yield "no decay", partial(launch, "no decay", shape, function, IPLR, torch.bfloat16)
