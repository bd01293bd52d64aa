"""Cases that HGRN's recurrence must get right, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from fla.ops._shared.cases import Shape, draw, launch, sequence_cases
from fla.ops.hgrn.api import chunk_hgrn, fused_recurrent_hgrn
from fla.utils.spec import Cost, SequenceOp, Sizes, Spec

#: V is the number of channels D, whatever heads there are.
SEQUENCES = {"x": "B T V", "g": "B T V -"}
OPERANDS = {**SEQUENCES, "initial_state": "N V"}

SHAPES = {
    "one step": Shape(3, 1, 1, 1, 64),
    "one chunk and a bit": Shape(2, 67, 1, 1, 24),
    "one channel": Shape(2, 40, 1, 1, 1, decay=1.0),
    "odd channels": Shape(1, 75, 1, 1, 37, decay=1.0),
    "packed": Shape(1, 90, 1, 1, 16, lengths=(1, 31, 0, 40, 18), decay=1.0),
    "strong decay": Shape(1, 70, 1, 1, 16, decay=30.0),
    "cut into segments": Shape(1, 290, 1, 1, 8, decay=1.0),
    "cut into segments, packed": Shape(1, 300, 1, 1, 8, lengths=(7, 0, 280, 13), decay=0.2),
    "long": Shape(2, 3000, 1, 1, 100),
    "many sequences": Shape(1, 500, 1, 1, 256, lengths=(3,) * 100 + (200,)),
    "many channels": Shape(8, 1100, 1, 1, 2048, decay=1.0),
    "few channels, very long": Shape(1, 33000, 1, 1, 512, decay=0.01),
    "few channels, very long, packed": Shape(1, 33000, 1, 1, 512, lengths=(20001, 0, 3, 12996), decay=0.01),
}

#: The same code by another name.
RECURRENT_SHAPES = {
    "one step": Shape(3, 1, 1, 1, 64),
    "packed": Shape(1, 30, 1, 1, 16, lengths=(10, 20)),
}


def make_inputs(sizes: Sizes, generator: torch.Generator, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Channels for all heads together."""
    return draw(SEQUENCES, {**sizes, "V": sizes["H"] * sizes["V"]}, generator, dtype)


def cost(sizes: Sizes, element: int) -> Cost:
    """Every input read once and every output written once; the backward pass also runs the forward one again."""
    elements = sizes["B"] * sizes["T"] * sizes["H"] * sizes["V"]
    return Cost(
        bytes_fwd=3 * elements * element,
        bytes_bwd=5 * elements * element,
        flops_fwd=3 * elements,
        flops_bwd=8 * elements,
    )


SPEC = Spec(
    name="hgrn",
    paper="2311.04823",
    functions=("chunk_hgrn", "fused_recurrent_hgrn"),
    backends=("triton", "torch", "reference"),
    cases=(
        *sequence_cases(chunk_hgrn, OPERANDS, SHAPES),
        *sequence_cases(fused_recurrent_hgrn, OPERANDS, RECURRENT_SHAPES),
    ),
    cost=cost,
    sequence_ops=(SequenceOp(chunk_hgrn, make_inputs), SequenceOp(fused_recurrent_hgrn, make_inputs)),
    features=frozenset({"state", "packed", "compile", "backward"}),
    timed_sizes={"V": 2048},
)


def aot_cases() -> Iterator[tuple[str, Callable[[], None]]]:
    """One call of every kernel for each tile that ships, to be compiled without a GPU."""
    for dtype in (torch.bfloat16, torch.float32):
        for title, shape in (
            ("uncut", Shape(128, 64, 1, 1, 64)),
            ("cut", Shape(1, 600, 1, 1, 512)),
            ("cut, packed", Shape(1, 600, 1, 1, 512, lengths=(500, 100))),
            ("odd channels", Shape(1, 600, 1, 1, 100)),
        ):
            name = f"{dtype} {title}".removeprefix("torch.")
            yield f"chunk_hgrn {name}", partial(launch, name, shape, chunk_hgrn, OPERANDS, dtype)
