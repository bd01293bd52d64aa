"""Cases that linear attention must get right, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from fla.ops._shared.cases import Shape, draw, launch, sequence_cases
from fla.ops.linear_attn.api import chunk_linear_attn, fused_recurrent_linear_attn
from fla.ops.simple_gla import spec as simple_gla
from fla.utils.spec import Case, Cost, SequenceOp, Sizes, Spec

QKV = {"q": "B T H K", "k": "B T H K", "v": "B T H V"}
STATE = {"initial_state": "N H K V"}
PLAIN = {"normalize": False}

CHUNK_SHAPES = {
    "one step": Shape(2, 1, 2, 16, 24),
    "one chunk and a bit": Shape(2, 67, 2, 16, 24),
    "odd head dims": Shape(1, 75, 2, 17, 33),
    "packed": Shape(1, 90, 2, 16, 16, lengths=(1, 31, 0, 40, 18)),
    "head dim 64": Shape(2, 200, 3, 64, 64),
    "head dim 256": Shape(1, 130, 2, 256, 256),
    "more features than channels a head may have": Shape(1, 40, 1, 300, 8),
}
PLAIN_SHAPES = {"not normalised, packed": Shape(1, 70, 2, 16, 8, lengths=(30, 40), options=PLAIN)}
#: By feature map, with values that have something in common: it cancels in the gradients.
FEATURES = {
    name: {"q": f"B T H K {mark}", "k": f"B T H K {mark}", "v": "B T H V !"}
    for name, mark in (("elu + 1", "~"), ("relu", ">"), ("exp", "^"))
}
NORMALISED = {"normalize": True}
LONG_SHAPES = {"1024 steps": Shape(1, 1024, 1, 8, 8, options=NORMALISED)}
LONGEST_SHAPES = {"elu + 1, 32768 steps": Shape(1, 32768, 1, 64, 64, options=NORMALISED)}
LONG_RECURRENT_SHAPES = {"40 steps": Shape(1, 40, 2, 8, 8, options=NORMALISED)}
RECURRENT_SHAPES = {
    "one step": Shape(3, 1, 2, 16, 16),
    "reversed": Shape(2, 20, 2, 17, 9, options={"reverse": True}),
    "packed": Shape(1, 30, 2, 16, 8, lengths=(10, 20)),
    "head dim 128": Shape(2, 40, 2, 128, 128),
    "more features than channels a head may have": Shape(1, 3, 1, 300, 8),
}


def _normalised(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with weights that are not negative, and z as an argument of its own."""

    def call(q: torch.Tensor, k: torch.Tensor, initial_state: torch.Tensor, z: torch.Tensor, **arguments: Any) -> Any:
        state = (initial_state, z.abs().unsqueeze(1))
        return function(q.abs(), k.abs(), initial_state=state, normalize=True, **arguments)

    call.__name__ = function.__name__
    return call


def _draw_positive(
    normalize: bool, sizes: Sizes, generator: torch.Generator, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    drawn = draw(QKV, sizes, generator, dtype)
    # Far enough from zero to stay positive when a test makes later steps smaller.
    return {name: x.abs() + 1 if normalize and name != "v" else x for name, x in drawn.items()}


_chunk, _recurrent = _normalised(chunk_linear_attn), _normalised(fused_recurrent_linear_attn)
OPERANDS = {**QKV, **STATE, "z": "N H K"}


def _long_cases() -> Iterator[Case]:
    for features, operands in FEATURES.items():
        for function, shapes in (
            (chunk_linear_attn, LONG_SHAPES),
            (fused_recurrent_linear_attn, LONG_RECURRENT_SHAPES),
        ):
            yield from sequence_cases(function, operands, {f"{features}, {t}": shape for t, shape in shapes.items()})
    yield from sequence_cases(chunk_linear_attn, FEATURES["elu + 1"], LONGEST_SHAPES)


def cost(sizes: Sizes, element: int, chunk: int = 64) -> Cost:
    """Every input read once and every output written once; the chunked algorithm's matrix products."""
    heads = sizes["B"] * sizes["T"] * sizes["H"]
    k, v = sizes["K"], sizes["V"]
    return Cost(
        bytes_fwd=heads * element * (2 * k + 2 * v),
        bytes_bwd=heads * element * (4 * k + 3 * v),
        flops_fwd=heads * (2 * chunk * (k + v) + 4 * k * v),
        flops_bwd=heads * (5 * chunk * (k + v) + 10 * k * v),
    )


SPEC = Spec(
    name="linear_attn",
    paper="2006.16236",
    functions=("chunk_linear_attn", "fused_recurrent_linear_attn"),
    backends=("triton", "torch", "reference"),
    cases=(
        *sequence_cases(_chunk, OPERANDS, CHUNK_SHAPES),
        *sequence_cases(_recurrent, OPERANDS, RECURRENT_SHAPES),
        *_long_cases(),
        *sequence_cases(chunk_linear_attn, {**QKV, **STATE}, PLAIN_SHAPES),
        *sequence_cases(fused_recurrent_linear_attn, {**QKV, **STATE}, PLAIN_SHAPES),
    ),
    cost=cost,
    sequence_ops=(
        SequenceOp(chunk_linear_attn, partial(_draw_positive, True)),
        SequenceOp(fused_recurrent_linear_attn, partial(_draw_positive, False)),
    ),
    features=frozenset({"state", "packed", "compile", "backward"}),
)


#: A walk in float32 keeps its state in registers, here that of the ones too.
AOT_SPILL_ALLOWANCE = {**simple_gla.AOT_SPILL_ALLOWANCE, "scalar_decay_walk_kernel": 384}


def aot_cases() -> Iterator[tuple[str, Callable[[], None]]]:
    """The engine's kernels at the widths that the normaliser gives values."""
    for dim, function in ((64, _chunk), (128, _chunk), (128, _recurrent)):
        name, shape = f"bfloat16 {dim}", Shape(1, 128, 2, dim, dim)
        yield f"{function.__name__} {name}", partial(launch, name, shape, function, OPERANDS, torch.bfloat16)
