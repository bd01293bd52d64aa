"""Cases that state-space duality must get right, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial, wraps
from typing import Any

import torch

from fla.ops._shared.arguments import sum_dtype
from fla.ops._shared.cases import Shape, draw, launch, sequence_cases
from fla.ops.simple_gla.spec import AOT_SPILL_ALLOWANCE as AOT_SPILL_ALLOWANCE
from fla.ops.ssd.api import fused_recurrent_ssd, mamba_chunk_scan
from fla.utils.spec import Cost, SequenceOp, Sizes, Spec

#: H is the number of groups, HV that of heads; K is the size of the state, V that of a head. What each head has one of
#: is made below: the gradients of A and dt_bias are sums of so many terms of either sign that no rounding bounds them.
OPERANDS = {"x": "B T HV V", "dt": "B T HV", "B": "B T H K", "C": "B T H K"}
STATE = {"initial_state": "N HV V K"}
WHOLE = {**OPERANDS, "z": "B T HV V", "D": "HV", **STATE}
BARE = {**OPERANDS, "dt": "B T HV +", **STATE}

STEPS = {"dt_softplus": False}
BARE_SHAPES = {
    "one step": Shape(3, 1, 1, 4, 8, HV=2, options=STEPS),
    "one chunk and a bit": Shape(2, 67, 2, 16, 24, options=STEPS),
    "odd sizes, groups": Shape(1, 75, 2, 17, 33, HV=6, options=STEPS),
    "packed": Shape(1, 90, 2, 16, 16, lengths=(1, 31, 0, 40, 18), options=STEPS),
    "fast rates": Shape(1, 70, 1, 16, 16, HV=2, options={**STEPS, "fastest": 30.0}),
    "limits": Shape(1, 40, 1, 16, 16, HV=2, options={**STEPS, "dt_limit": (0.3, 0.7)}),
}
WHOLE_SHAPES = {
    "every option": Shape(1, 70, 1, 16, 16, HV=6),
    "every option, limits, packed": Shape(1, 70, 1, 16, 16, HV=6, lengths=(5, 65), options={"dt_limit": (0.3, 0.9)}),
    "no gate": Shape(1, 30, 2, 16, 8, without=("z",)),
    "no skip": Shape(1, 30, 2, 16, 8, without=("D",)),
    "Mamba-2's sizes": Shape(2, 300, 1, 128, 64, HV=4),
    "Mamba-2's sizes, two chunks": Shape(2, 100, 1, 128, 64, HV=4),
    "Mamba-2's sizes, packed, groups": Shape(1, 333, 2, 128, 64, HV=4, lengths=(64, 1, 200, 68)),
    "many chunks": Shape(1, 1400, 1, 64, 64, HV=4),
}
CHANNEL_SHAPES = {"skip by channel": Shape(1, 40, 1, 16, 12, HV=2)}
RECURRENT_SHAPES = {
    "one step": Shape(3, 1, 1, 16, 16, HV=2),
    "odd sizes, limits": Shape(2, 20, 1, 17, 9, HV=6, options={"dt_limit": (0.3, 0.9)}),
    "packed": Shape(1, 30, 1, 16, 8, HV=6, lengths=(10, 0, 20)),
}

Results = tuple[torch.Tensor, torch.Tensor | None]


def over_sequences(function: Callable[..., Any]) -> Callable[..., Results]:
    """The function with A, dt_bias and softplus, by the names that other families have; always returns a pair."""

    @wraps(function)
    def call(
        x: torch.Tensor,
        *,
        initial_state: torch.Tensor | None = None,
        output_final_state: bool = False,
        dt_softplus: bool = True,
        fastest: float = 2.0,
        **operands: Any,
    ) -> Results:
        rates = torch.arange(1, x.shape[2] + 1, dtype=sum_dtype(x), device=x.device) * (fastest / x.shape[2])
        results = function(
            x,
            A=-rates,
            dt_bias=rates.sin() if dt_softplus else None,
            dt_softplus=dt_softplus,
            initial_states=initial_state,
            return_final_states=output_final_state,
            **operands,
        )
        return results if output_final_state else (results, None)

    return call


chunk, recurrent = over_sequences(mamba_chunk_scan), over_sequences(fused_recurrent_ssd)


def cost(sizes: Sizes, element: int, chunk: int = 64) -> Cost:
    """Every input read once and every output written once; the chunked algorithm's matrix products, head by head."""
    steps, heads, k, v = sizes["B"] * sizes["T"], sizes["HV"], sizes["K"], sizes["V"]
    shared, own = steps * sizes["H"] * k * element, steps * heads * element
    return Cost(
        bytes_fwd=2 * shared + own * (2 * v + 1),
        bytes_bwd=4 * shared + own * (3 * v + 2),
        flops_fwd=steps * heads * (2 * chunk * (k + v) + 4 * k * v),
        flops_bwd=steps * heads * (5 * chunk * (k + v) + 10 * k * v),
    )


SPEC = Spec(
    name="ssd",
    paper="2405.21060",
    functions=("mamba_chunk_scan", "fused_recurrent_ssd"),
    backends=("triton", "torch", "reference"),
    cases=(
        *sequence_cases(chunk, BARE, BARE_SHAPES),
        *sequence_cases(chunk, WHOLE, WHOLE_SHAPES),
        *sequence_cases(chunk, {**WHOLE, "D": "HV V"}, CHANNEL_SHAPES),
        *sequence_cases(recurrent, WHOLE, RECURRENT_SHAPES),
    ),
    cost=cost,
    sequence_ops=(
        SequenceOp(chunk, partial(draw, OPERANDS)),
        SequenceOp(recurrent, partial(draw, OPERANDS)),
    ),
    features=frozenset({"state", "packed", "compile", "backward"}),
    timed_sizes={"H": 1, "HV": 64, "V": 64},
)


def aot_cases() -> Iterator[tuple[str, Callable[[], None]]]:
    """A call of each form; the kernels are those of linear attention with scalar decay, compiled by its cases."""
    for function in (chunk, recurrent):
        title = "bfloat16, heads of 64, states of 128"
        shape = Shape(1, 128, 1, 128, 64, HV=16)
        yield f"{function.__name__} {title}", partial(launch, title, shape, function, WHOLE, torch.bfloat16)
