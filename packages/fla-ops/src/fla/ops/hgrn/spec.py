"""What the elementwise recurrence must get right, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from fla.ops._cases import Shape, draw, launch, sequence_cases
from fla.ops.hgrn.api import chunk_hgrn, fused_recurrent_hgrn
from fla.utils._spec import Cost, SequenceOp, Sizes, Spec

SEQUENCES = {"x": "B T K", "g": "B T K -"}
OPERANDS = {**SEQUENCES, "initial_state": "N K"}

#: The channels are K here.
SHAPES = {
    "one step": Shape(3, 1, 1, 10, 1),
    "one chunk and a bit": Shape(2, 67, 1, 16, 1),
    "odd width": Shape(1, 100, 1, 37, 1, decay=1.0),
    "packed": Shape(1, 90, 1, 16, 1, lengths=(1, 31, 0, 40, 18), decay=1.0),
    "strong decay": Shape(1, 70, 1, 16, 1, decay=30.0),
    "time split in segments": Shape(1, 1030, 1, 8, 1),
    "time split in segments, packed": Shape(1, 1030, 1, 8, 1, lengths=(300, 0, 1, 600, 129), decay=1 / 256),
    "wide": Shape(2, 300, 1, 520, 1, decay=1.0),
    "long": Shape(2, 20_000, 1, 500, 1, decay=1 / 256),
}
RECURRENT_SHAPES = {"one step": SHAPES["one step"], "packed": SHAPES["packed"]}


def cost(sizes: Sizes, element: int) -> Cost:
    """Every input read once and every output written once; two operations an element and step."""
    elements = sizes["B"] * sizes["T"] * sizes.get("D", sizes.get("H", 1) * sizes["K"])
    return Cost(
        bytes_fwd=3 * elements * element,
        bytes_bwd=5 * elements * element,
        flops_fwd=2 * elements,
        flops_bwd=5 * elements,
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
    sequence_ops=(
        SequenceOp(chunk_hgrn, partial(draw, SEQUENCES)),
        SequenceOp(fused_recurrent_hgrn, partial(draw, SEQUENCES)),
    ),
    features=frozenset({"state", "packed", "compile", "backward"}),
)


def aot_cases() -> Iterator[tuple[str, Callable[[], None]]]:
    """One call of every kernel for each tile that ships, to be compiled without a GPU."""
    for dtype in (torch.bfloat16, torch.float32):
        for title, shape in (
            ("one step", Shape(2, 1, 1, 1024, 1)),
            ("whole", Shape(2, 128, 1, 1024, 1)),
            ("packed", Shape(1, 128, 1, 1024, 1, lengths=(100, 28))),
            ("segments", Shape(1, 2048, 1, 256, 1)),
            ("segments, packed", Shape(1, 2048, 1, 256, 1, lengths=(2000, 48))),
        ):
            name = f"{dtype} {title}".removeprefix("torch.")
            yield f"chunk_hgrn {name}", partial(launch, name, shape, chunk_hgrn, OPERANDS, dtype)
