"""Cases that RWKV-7's ops must get right, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial, wraps
from typing import Any

import torch

from fla.ops._shared.cases import Shape, draw, launch, sequence_cases
from fla.ops.generalized_delta_rule.spec import AOT_SPILL_ALLOWANCE as AOT_SPILL_ALLOWANCE, bounded, cost
from fla.ops.rwkv7.api import chunk_rwkv7, fused_mul_recurrent_rwkv7, fused_recurrent_rwkv7
from fla.ops.rwkv7.steps import fused_addcmul_rwkv7, fused_k_rwkv7, gate_output_correction
from fla.utils.spec import SequenceOp, Spec

#: ``w`` are logits of the decay here.
OPERANDS = {
    "r": "B T H K",
    "w": "B T H K",
    "k": "B T H K",
    "v": "B T H V",
    "kk": "B T H K |",
    "strength": "B T H K +",
}
STATE = {"initial_state": "N H K V"}
ALL = {**OPERANDS, **STATE}
MUL = {"a" if name == "strength" else name: letters for name, letters in ALL.items()}
SHARES = dict.fromkeys(("xr", "xw", "xk", "xv", "xa", "xg"), "K")
ADDCMUL = {"hidden_states": "B T K", "delta": "B T K", **SHARES}
K_UPDATE = {"k": "B T K", "a": "B T K +", "ka": "K"}
CORRECTION = {"o": "B T H V", "r": "B T H K", "k": "B T H K", "r_k": "H K", "v": "B T H V", "g": "B T H V"}

STRONG = {"strong": True}
CHUNK_SHAPES = {
    "one step": Shape(1, 1, 8, 4, 8),
    "one chunk and a bit": Shape(2, 67, 2, 16, 24),
    "packed": Shape(1, 90, 2, 16, 16, lengths=(1, 31, 0, 40, 18)),
    "strong decay": Shape(1, 70, 1, 16, 16, options=STRONG),
    "head dim 64": Shape(2, 200, 3, 64, 64),
    "head dim 64, packed": Shape(1, 333, 2, 64, 64, lengths=(64, 1, 200, 68)),
    "head dim 128": Shape(2, 300, 2, 128, 128),
    "head dim 256": Shape(1, 130, 2, 256, 256),
    "many chunks": Shape(2, 700, 4, 64, 64),
}
RECURRENT_SHAPES = {
    "one step": Shape(3, 1, 2, 16, 16),
    "packed, reversed": Shape(1, 30, 2, 16, 8, lengths=(10, 20), options={"reverse": True}),
    "head dim 64": Shape(2, 40, 2, 64, 64),
}
STEP_SHAPES = {"a few tokens": Shape(2, 5, 2, 16, 16), "many tokens": Shape(2, 300, 4, 64, 64)}


def decaying(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with the model's decay, or a strong one, from logits w; in float32."""

    @wraps(function)
    def call(*, w: torch.Tensor, strong: bool = False, **others: Any) -> Any:
        wide = torch.float64 if w.dtype == torch.float64 else torch.float32
        return function(w=-(30.0 if strong else math.exp(-0.5)) * torch.sigmoid(w.to(wide)), **others)

    return call


def step(function: Callable[..., Any]) -> Callable[..., Any]:
    """A small step, which knows no backends; heads are laid side by side where it wants them so."""

    @wraps(function)
    def call(*, backend: str | None, **operands: torch.Tensor) -> Any:
        return function(**{name: x.flatten(-2) if name in ("o", "g") else x for name, x in operands.items()})

    return call


SPEC = Spec(
    name="rwkv7",
    paper="2503.14456",
    functions=(
        "chunk_rwkv7",
        "fused_recurrent_rwkv7",
        "fused_mul_recurrent_rwkv7",
        "fused_addcmul_rwkv7",
        "fused_k_rwkv7",
        "gate_output_correction",
    ),
    backends=("triton", "torch", "reference"),
    cases=(
        *sequence_cases(decaying(bounded(chunk_rwkv7)), ALL, CHUNK_SHAPES),
        *sequence_cases(decaying(bounded(fused_recurrent_rwkv7)), ALL, RECURRENT_SHAPES),
        *sequence_cases(decaying(fused_mul_recurrent_rwkv7), MUL, RECURRENT_SHAPES),
        *sequence_cases(step(fused_addcmul_rwkv7), ADDCMUL, STEP_SHAPES),
        *sequence_cases(step(fused_k_rwkv7), K_UPDATE, STEP_SHAPES),
        *sequence_cases(step(gate_output_correction), CORRECTION, STEP_SHAPES),
    ),
    cost=cost,
    sequence_ops=(
        SequenceOp(decaying(bounded(chunk_rwkv7)), partial(draw, OPERANDS)),
        SequenceOp(
            decaying(fused_mul_recurrent_rwkv7),
            partial(draw, {name: letters for name, letters in MUL.items() if name not in STATE}),
        ),
    ),
    features=frozenset({"state", "packed", "compile", "backward"}),
)


def aot_cases() -> Iterator[tuple[str, Callable[[], None]]]:
    """A call of each form; the tiles are those of the generalized delta rule, compiled by its cases."""
    for function, operands in ((bounded(chunk_rwkv7), ALL), (fused_mul_recurrent_rwkv7, MUL)):
        shape, title = Shape(1, 128, 2, 64, 64), "bfloat16 64"
        call = decaying(function)
        yield f"{call.__name__} {title}", partial(launch, title, shape, call, operands, torch.bfloat16)
