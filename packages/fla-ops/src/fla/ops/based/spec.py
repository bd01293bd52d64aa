"""Cases that Based must get right, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from fla.ops._engines.second_order.features import taylor_width
from fla.ops._shared.cases import Shape, draw, launch, sequence_cases
from fla.ops.based.api import parallel_based
from fla.ops.linear_attn.spec import cost as linear_cost
from fla.utils.spec import Cost, SequenceOp, Sizes, Spec

QKV = {"q": "B T H K", "k": "B T H K", "v": "B T H V"}
PAST = {"past_k": "N H K", "past_v": "N H V"}
PLAIN = {"use_norm": False}

SHAPES = {
    "one chunk and a bit": Shape(1, 67, 2, 8, 16),
    "odd head dims": Shape(1, 75, 1, 5, 9),
    "packed": Shape(1, 90, 1, 4, 16, lengths=(1, 31, 0, 40, 18)),
    "head dim 16": Shape(2, 200, 2, 16, 64),
    "more features than a head may have channels": Shape(1, 70, 1, 22, 48),
    "values wider than a block": Shape(1, 70, 1, 8, 160),
}
PLAIN_SHAPES = {"not normalised": Shape(1, 70, 2, 4, 8, options=PLAIN)}
#: Values that have something in common: it cancels in the gradients.
AROUND_ONE = {"q": "B T H K !", "k": "B T H K !", "v": "B T H V !"}
LONG_SHAPES = {
    "1024 steps": Shape(1, 1024, 1, 4, 8),
    "32768 steps": Shape(1, 32768, 1, 16, 64),
}
# Heads enough that the relative error of past_k's gradient is one of more than a few numbers.
CONTINUED_SHAPES = {
    "continued": Shape(2, 70, 3, 4, 8),
    "continued, few steps": Shape(2, 6, 2, 16, 16),
    "continued, packed": Shape(1, 70, 3, 4, 8, lengths=(30, 40)),
    "continued, not normalised": Shape(1, 70, 6, 4, 8, options=PLAIN),
}


def after_a_step(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function from the state that one step before leaves behind, with the final state."""

    def call(past_k: torch.Tensor, past_v: torch.Tensor, **arguments: Any) -> Any:
        options = {name: value for name, value in arguments.items() if name not in ("q", "k", "v", "cu_seqlens")}
        k = past_k.unsqueeze(1)
        *_, state = function(k, k, past_v.unsqueeze(1), output_final_state=True, **options)
        return function(**arguments, initial_state=state, output_final_state=True)

    call.__name__ = function.__name__
    return call


def cost(sizes: Sizes, element: int, chunk: int = 64) -> Cost:
    """Every input read once and every output written once; the matrix products over features."""
    products = linear_cost({**sizes, "K": taylor_width(sizes["K"])}, element, chunk)
    moved = linear_cost(sizes, element)
    return Cost(moved.bytes_fwd, moved.bytes_bwd, products.flops_fwd, products.flops_bwd)


SPEC = Spec(
    name="based",
    paper="2402.18668",
    functions=("parallel_based",),
    backends=("triton", "torch", "reference"),
    cases=(
        *sequence_cases(parallel_based, QKV, SHAPES),
        *sequence_cases(parallel_based, AROUND_ONE, LONG_SHAPES),
        *sequence_cases(parallel_based, QKV, PLAIN_SHAPES),
        *sequence_cases(after_a_step(parallel_based), {**QKV, **PAST}, CONTINUED_SHAPES),
    ),
    cost=cost,
    sequence_ops=(SequenceOp(parallel_based, partial(draw, QKV)),),
    features=frozenset({"state", "packed", "compile", "backward"}),
    timed_sizes={"K": 16},
)


#: States in float32 are split into two halves.
AOT_SPILL_ALLOWANCE = {"second_order_query_bwd_kernel": 88}


def aot_cases() -> Iterator[tuple[str, Callable[[], None]]]:
    """One call of every kernel for each tile that ships, to be compiled without a GPU."""
    for dtype, dim, lengths in ((torch.bfloat16, 128, ()), (torch.float32, 64, (100, 28))):
        shape = Shape(1, 128, 2, 16, dim, lengths=lengths)
        title = f"{dtype} 16x{dim}{' packed' if lengths else ''}".removeprefix("torch.")
        yield f"parallel_based {title}", partial(launch, title, shape, parallel_based, QKV, dtype)
