"""Cases that Kimi delta attention must get right, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from fla.ops._shared.cases import Shape, draw, launch, sequence_cases
from fla.ops.gated_delta_rule.spec import BETA, QKV, STATE, V_FIRST, WHOLE_GATE, cost as scalar_cost
from fla.ops.kda.api import chunk_kda, fused_recurrent_kda
from fla.utils.spec import Cost, SequenceOp, Sizes, Spec

OPERANDS = {**QKV, "g": "B T HV K -", **BETA}
CALL = {**OPERANDS, **STATE}
RAW = {"q": "B T H K", "k": "B T H K", "v": "B T HV V", "g": "B T HV K", "beta": "B T HV", **STATE}
GATED = {**RAW, "A_log": "HV", "dt_bias": "HV K"}

BOUNDED_GATE = {**WHOLE_GATE, "lower_bound": -5.0}
SAFE_GATE = {**BOUNDED_GATE, "safe_gate": True, "disable_recompute": True}

CHUNK_SHAPES = {
    "one step": Shape(1, 1, 8, 4, 8),
    "one chunk and a bit": Shape(2, 67, 2, 16, 24),
    "odd head dims": Shape(1, 75, 2, 17, 33, decay=1.0),
    "packed": Shape(1, 90, 2, 16, 16, lengths=(1, 31, 0, 40, 18), decay=1.0),
    "grouped heads": Shape(1, 70, 2, 16, 16, HV=4, decay=1.0),
    "state with V first": Shape(1, 40, 1, 16, 8, options=V_FIRST),
    "mild decay": Shape(1, 90, 1, 16, 16, decay=1 / 256),
    # Few steps are left of each sequence: enough of them that errors are not large by chance.
    "strong decay": Shape(1, 70, 4, 16, 16, decay=30.0),
    "head dim 64": Shape(2, 200, 3, 64, 64),
    "head dim 128": Shape(2, 300, 2, 128, 128, decay=1.0),
    "head dim 128, packed, grouped": Shape(1, 333, 1, 128, 128, lengths=(64, 1, 200, 68), HV=2),
    "head dim 256": Shape(1, 130, 2, 256, 256, decay=0.2),
    "keys wider than values": Shape(1, 130, 2, 200, 72, decay=1.0),
    "values wider than keys": Shape(1, 130, 2, 48, 160, decay=1.0),
    "many chunks": Shape(2, 700, 4, 64, 128),
}
# Enough heads that the gradient of A_log, one sum with cancellation for each, is not small by chance.
GATE_SHAPES = {
    "everything in the op": Shape(1, 70, 2, 16, 16, HV=6, options=WHOLE_GATE),
    "gate with a lower bound": Shape(1, 40, 2, 16, 16, HV=8, options=SAFE_GATE),
    "lower bound, rate 1, no bias": Shape(1, 20, 2, 8, 8, without=("A_log", "dt_bias"), options=BOUNDED_GATE),
}
RECURRENT_SHAPES = {
    "one step": Shape(3, 1, 2, 16, 16),
    "V first, grouped": Shape(1, 17, 1, 8, 16, HV=2, decay=1.0, options=V_FIRST),
    "packed": Shape(1, 40, 2, 8, 8, lengths=(1, 15, 24), decay=1.0),
    "strong decay": Shape(2, 12, 4, 8, 8, decay=30.0),
    "head dim 128": Shape(2, 40, 2, 128, 128),
    "head dim 256": Shape(1, 20, 1, 256, 200, options=V_FIRST),
}
RECURRENT_GATE_SHAPES = {
    "everything in the op": Shape(2, 9, 2, 16, 16, HV=8, options=WHOLE_GATE),
    "gate with a lower bound": Shape(2, 9, 2, 16, 16, HV=8, options=BOUNDED_GATE),
}


def cost(sizes: Sizes, element: int, chunk: int = 64) -> Cost:
    """That of the gated delta rule, and the decays of a head's channels instead of one."""
    scalar = scalar_cost(sizes, element, chunk)
    decays = sizes["B"] * sizes["T"] * sizes.get("HV", sizes["H"]) * 4 * (sizes["K"] - 1)
    return Cost(scalar.bytes_fwd + decays, scalar.bytes_bwd + 2 * decays, scalar.flops_fwd, scalar.flops_bwd)


SPEC = Spec(
    name="kda",
    paper="2510.26692",
    functions=("chunk_kda", "fused_recurrent_kda"),
    backends=("triton", "torch", "reference"),
    cases=(
        *sequence_cases(chunk_kda, CALL, CHUNK_SHAPES),
        *sequence_cases(chunk_kda, GATED, GATE_SHAPES),
        *sequence_cases(fused_recurrent_kda, CALL, RECURRENT_SHAPES),
        *sequence_cases(fused_recurrent_kda, GATED, RECURRENT_GATE_SHAPES),
    ),
    cost=cost,
    sequence_ops=(
        SequenceOp(chunk_kda, partial(draw, OPERANDS)),
        SequenceOp(fused_recurrent_kda, partial(draw, OPERANDS)),
    ),
    features=frozenset({"state", "packed", "compile", "backward"}),
)

#: Decay by channel makes a tile of factors for every level of halving, beside what the gated delta rule holds.
AOT_SPILL_ALLOWANCE = {
    "delta_channel_pairs_fwd_kernel": 512,
    "delta_walk_fwd_kernel": 832,
    "delta_walk_bwd_kernel": 640,
    "delta_channel_key_bwd_kernel": 272,
}


def aot_cases() -> Iterator[tuple[str, Callable[[], None]]]:
    """The kernels of the gated delta rule with a decay by channel, for each tile that ships."""
    calls: tuple[tuple[Callable[..., Any], torch.dtype, int, tuple[int, ...]], ...] = (
        (chunk_kda, torch.bfloat16, 64, ()),
        (chunk_kda, torch.bfloat16, 128, ()),
        (chunk_kda, torch.bfloat16, 128, (100, 28)),
        (chunk_kda, torch.bfloat16, 256, ()),
        (chunk_kda, torch.float32, 128, ()),
        (fused_recurrent_kda, torch.bfloat16, 128, ()),
    )
    for function, dtype, dim, lengths in calls:
        title = f"{dtype} {dim}{' packed' if lengths else ''}".removeprefix("torch.")
        shape = Shape(1, 128, 2, dim, dim, lengths=lengths)
        yield f"{function.__name__} {title}", partial(launch, title, shape, function, CALL, dtype)
