"""Cases that ReBased must get right, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from fla.ops._engines.second_order.features import half_square_width
from fla.ops._shared.cases import Shape, draw, launch, sequence_cases
from fla.ops.based.spec import (
    AOT_SPILL_ALLOWANCE as AOT_SPILL_ALLOWANCE,
    AROUND_ONE,
    LONG_SHAPES,
    PAST,
    QKV,
    after_a_step,
)
from fla.ops.linear_attn.spec import cost as linear_cost
from fla.ops.rebased.api import parallel_rebased
from fla.utils.spec import Cost, SequenceOp, Sizes, Spec

PLAIN = {"use_normalize": False}

SHAPES = {
    "one chunk and a bit": Shape(1, 67, 2, 8, 16),
    "odd head dims": Shape(1, 75, 1, 5, 9),
    "packed": Shape(1, 90, 1, 4, 16, lengths=(1, 31, 0, 40, 18)),
    "head dim 16": Shape(2, 200, 2, 16, 64),
    "more features than a head may have channels": Shape(1, 70, 1, 22, 48, options=PLAIN),
    "values wider than a block": Shape(1, 70, 1, 8, 160),
    "not normalised": Shape(1, 70, 2, 4, 8, options=PLAIN),
    "both sums": Shape(1, 70, 2, 4, 8, options={"return_both": True, "use_scale": False}),
}
CONTINUED_SHAPES = {
    "continued": Shape(2, 70, 3, 4, 8),
    "continued, few steps": Shape(2, 6, 2, 16, 16, options={"return_both": True}),
    "continued, packed": Shape(1, 70, 3, 4, 8, lengths=(30, 40)),
    "continued, not normalised": Shape(1, 70, 6, 4, 8, options=PLAIN),
}


def cost(sizes: Sizes, element: int, chunk: int = 64) -> Cost:
    """Every input read once and every output written once; the matrix products over features."""
    products = linear_cost({**sizes, "K": half_square_width(sizes["K"])}, element, chunk)
    moved = linear_cost(sizes, element)
    return Cost(moved.bytes_fwd, moved.bytes_bwd, products.flops_fwd, products.flops_bwd)


SPEC = Spec(
    name="rebased",
    paper="2402.10644",
    functions=("parallel_rebased",),
    backends=("triton", "torch", "reference"),
    cases=(
        *sequence_cases(parallel_rebased, QKV, SHAPES),
        *sequence_cases(parallel_rebased, AROUND_ONE, LONG_SHAPES),
        *sequence_cases(after_a_step(parallel_rebased), {**QKV, **PAST}, CONTINUED_SHAPES),
    ),
    cost=cost,
    # Positive, so that no sum of weights is near 0: there each of two forms may be off by any number of roundings.
    sequence_ops=(SequenceOp(parallel_rebased, partial(draw, {"q": "B T H K +", "k": "B T H K +", "v": "B T H V"})),),
    features=frozenset({"state", "packed", "compile", "backward"}),
    timed_sizes={"K": 16},
)


def aot_cases() -> Iterator[tuple[str, Callable[[], None]]]:
    """The kernels of Based with the other weights."""
    shape = Shape(1, 128, 2, 16, 64)
    yield "parallel_rebased 16x64", partial(launch, "16x64", shape, parallel_rebased, QKV, torch.bfloat16)
