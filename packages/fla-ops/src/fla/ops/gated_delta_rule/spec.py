"""Cases that the gated delta rule must get right, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from fla.ops._shared.cases import Shape, draw, launch, sequence_cases
from fla.ops.gated_delta_rule.api import chunk_gated_delta_rule, fused_recurrent_gated_delta_rule
from fla.utils.spec import Cost, SequenceOp, Sizes, Spec

QKV = {"q": "B T H K", "k": "B T H K |", "v": "B T HV V"}
BETA = {"beta": "B T HV +"}
STATE = {"initial_state": "N HV K V"}
OPERANDS = {**QKV, "g": "B T HV -", **BETA}
CHUNK = {**OPERANDS, **STATE}
RAW = {"q": "B T H K", "k": "B T H K", "v": "B T HV V", "g": "B T HV", "beta": "B T HV", **STATE}
GATED = {**RAW, "A_log": "HV", "dt_bias": "HV"}
RECURRENT = {**OPERANDS, "gk": "B T HV K -", "gv": "B T HV V -", **STATE}
BETA_PER_CHANNEL = {**OPERANDS, "beta": "B T HV V +", **STATE}

V_FIRST = {"state_v_first": True}
WHOLE_GATE = {
    "use_qk_l2norm_in_kernel": True,
    "use_beta_sigmoid_in_kernel": True,
    "allow_neg_eigval": True,
    "use_gate_in_kernel": True,
}

CHUNK_SHAPES = {
    "one step": Shape(1, 1, 8, 4, 8),
    "one chunk and a bit": Shape(2, 67, 2, 16, 24),
    "odd head dims": Shape(1, 75, 2, 17, 33, decay=1.0),
    "packed": Shape(1, 90, 2, 16, 16, lengths=(1, 31, 0, 40, 18), decay=1.0),
    "grouped heads": Shape(1, 70, 2, 16, 16, HV=4, decay=1.0),
    "state with V first": Shape(1, 40, 1, 16, 8, options=V_FIRST),
    "strong decay": Shape(1, 70, 1, 16, 16, decay=30.0),
    "no decay": Shape(1, 70, 1, 16, 16, without=("g",), options={"g": None}),
    "head dim 64": Shape(2, 200, 3, 64, 64),
    "head dim 128": Shape(2, 300, 2, 128, 128, decay=1.0),
    "head dim 128, packed, grouped": Shape(1, 333, 1, 128, 128, lengths=(64, 1, 200, 68), HV=2),
    "head dim 256": Shape(1, 130, 2, 256, 256, decay=0.2),
    "keys wider than values": Shape(1, 130, 2, 200, 72, decay=1.0),
    "values wider than keys": Shape(1, 130, 2, 48, 160, decay=1.0),
    "many chunks": Shape(2, 700, 4, 64, 128),
}
RECURRENT_SHAPES = {
    "one step": Shape(3, 1, 2, 16, 16, without=("gk", "gv")),
    "no decay": Shape(1, 9, 2, 8, 8, without=("g", "gk", "gv")),
    "two decays, V first, grouped": Shape(1, 17, 2, 8, 16, HV=8, decay=1.0, without=("gv",), options=V_FIRST),
    "all decays, packed": Shape(1, 40, 2, 8, 8, lengths=(1, 15, 24), decay=1.0),
    "strong decay": Shape(1, 12, 1, 8, 8, decay=30.0, without=("gk", "gv")),
    "head dim 128": Shape(2, 40, 2, 128, 128, without=("gk", "gv")),
    "head dim 256": Shape(1, 20, 1, 256, 200, without=("gv",), options=V_FIRST),
}


def cost(sizes: Sizes, element: int, chunk: int = 64) -> Cost:
    """Every input read once and every output written once; the chunked algorithm's matrix products."""
    heads = sizes["B"] * sizes["T"] * sizes.get("HV", sizes["H"])
    k, v = sizes["K"], sizes["V"]
    return Cost(
        bytes_fwd=heads * (element * (2 * k + 2 * v) + 8),
        bytes_bwd=heads * (element * (4 * k + 3 * v) + 16),
        flops_fwd=heads * (4 * chunk * (k + v) + 6 * k * v + 2 * chunk**2),
        flops_bwd=heads * (10 * chunk * (k + v) + 16 * k * v + 4 * chunk**2),
    )


SPEC = Spec(
    name="gated_delta_rule",
    paper="2412.06464",
    functions=("chunk_gated_delta_rule", "fused_recurrent_gated_delta_rule"),
    backends=("triton", "torch", "reference"),
    cases=(
        *sequence_cases(chunk_gated_delta_rule, CHUNK, CHUNK_SHAPES),
        *sequence_cases(
            chunk_gated_delta_rule,
            GATED,
            {"everything in the op": Shape(1, 70, 2, 16, 16, HV=6, options=WHOLE_GATE)},
        ),
        *sequence_cases(fused_recurrent_gated_delta_rule, RECURRENT, RECURRENT_SHAPES),
        *sequence_cases(
            fused_recurrent_gated_delta_rule,
            GATED,
            {"everything in the op": Shape(2, 17, 2, 16, 16, HV=8, options=WHOLE_GATE)},
        ),
        *sequence_cases(
            fused_recurrent_gated_delta_rule,
            BETA_PER_CHANNEL,
            {"beta per channel": Shape(1, 20, 1, 16, 16, HV=2)},
        ),
    ),
    cost=cost,
    sequence_ops=(
        SequenceOp(chunk_gated_delta_rule, partial(draw, OPERANDS)),
        SequenceOp(fused_recurrent_gated_delta_rule, partial(draw, OPERANDS)),
    ),
    features=frozenset({"state", "packed", "compile", "backward"}),
)


#: The state and what a chunk reads and writes of it are held at once: with head dimension 256 no register is left.
AOT_SPILL_ALLOWANCE = {"delta_walk_fwd_kernel": 640, "delta_walk_bwd_kernel": 608, "delta_key_bwd_kernel": 176}


def aot_cases() -> Iterator[tuple[str, Callable[[], None]]]:
    """One call of every kernel for each tile that ships, to be compiled without a GPU."""
    for dtype, dim, lengths, without, function in (
        (torch.bfloat16, 64, (), (), chunk_gated_delta_rule),
        (torch.bfloat16, 128, (), (), chunk_gated_delta_rule),
        (torch.bfloat16, 128, (100, 28), (), chunk_gated_delta_rule),
        (torch.bfloat16, 128, (), ("g",), chunk_gated_delta_rule),
        (torch.bfloat16, 256, (), (), chunk_gated_delta_rule),
        (torch.float32, 128, (), (), chunk_gated_delta_rule),
        (torch.bfloat16, 128, (), (), fused_recurrent_gated_delta_rule),
        (torch.float32, 128, (100, 28), (), fused_recurrent_gated_delta_rule),
    ):
        options = dict.fromkeys(without)
        shape = Shape(1, 128, 2, dim, dim, lengths=lengths, without=without, options=options)
        title = f"{dtype} {dim}{' packed' if lengths else ''}{' no decay' if without else ''}".removeprefix("torch.")
        yield f"{function.__name__} {title}", partial(launch, title, shape, function, CHUNK, dtype)
