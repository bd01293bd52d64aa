"""Cases that attention with bounded memory control must get right, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from fla.ops._shared.cases import Shape, draw, launch, sequence_cases
from fla.ops.abc.api import chunk_abc, fused_recurrent_abc
from fla.ops.gsa.spec import cost
from fla.ops.utils import normalised_writes, running_logsumexp
from fla.utils.spec import SequenceOp, Spec

SEQUENCES = {"q": "B T H K", "k": "B T H K", "v": "B T H V", "s": "B T H M"}
SHAPES = {
    "one chunk and a bit": Shape(2, 67, 2, 16, 8),
    "packed": Shape(1, 70, 1, 16, 8, lengths=(1, 0, 69)),
    "head dim 128": Shape(2, 300, 2, 128, 128, M=64),
}
#: The writes alone, which other families normalise as well. K is 1: there are none but M channels a head.
LOG_SUM = {"s": "B T H M", "initial": "N H M"}
WRITES_SHAPES = {
    "one step": Shape(3, 1, 8, 1, 1, M=8),
    "one tile and a bit": Shape(2, 37, 1, 1, 1, M=12),
    "from nothing": Shape(1, 37, 1, 1, 1, M=3, without=("initial",)),
    "packed": Shape(1, 90, 1, 1, 1, M=8, lengths=(1, 31, 0, 40, 18)),
    "packed, from nothing": Shape(1, 50, 1, 1, 1, M=8, lengths=(33, 17), without=("initial",)),
    "cut into segments": Shape(1, 290, 1, 1, 1, M=4),
    "cut into segments, packed, from nothing": Shape(1, 300, 1, 1, 1, M=4, lengths=(7, 280, 13), without=("initial",)),
    "long": Shape(4, 5000, 8, 16, 16, M=64),
}
SUMS_SHAPES = {
    "dense": Shape(2, 37, 1, 1, 1, M=8),
    "packed, from nothing": Shape(1, 50, 1, 1, 1, M=8, lengths=(20, 30), without=("initial",)),
}

SPEC = Spec(
    name="abc",
    paper="2110.02488",
    functions=("chunk_abc", "fused_recurrent_abc"),
    backends=("triton", "torch", "reference"),
    cases=(
        *sequence_cases(chunk_abc, SEQUENCES, SHAPES),
        *sequence_cases(fused_recurrent_abc, SEQUENCES, SHAPES),
        *sequence_cases(normalised_writes, LOG_SUM, WRITES_SHAPES),
        *sequence_cases(running_logsumexp, LOG_SUM, SUMS_SHAPES),
    ),
    cost=cost,
    sequence_ops=(
        SequenceOp(chunk_abc, partial(draw, SEQUENCES)),
        SequenceOp(fused_recurrent_abc, partial(draw, SEQUENCES)),
    ),
    features=frozenset({"state", "packed", "compile", "backward"}),
)


def aot_cases() -> Iterator[tuple[str, Callable[[], None]]]:
    """One call of every kernel for each tile that ships, to be compiled without a GPU."""
    for dtype in (torch.bfloat16, torch.float32):
        for title, shape in (
            ("uncut", Shape(64, 64, 16, 1, 1, M=64, options={"dtype": dtype})),
            ("cut", Shape(1, 600, 8, 1, 1, M=64, options={"dtype": dtype})),
            ("cut, packed", Shape(1, 600, 8, 1, 1, M=64, lengths=(500, 100))),
        ):
            name = f"{dtype} {title}".removeprefix("torch.")
            yield f"normalised_writes {name}", partial(launch, name, shape, normalised_writes, LOG_SUM, dtype)
    shape = Shape(1, 64, 1, 1, 1, M=64)
    yield "running_logsumexp", partial(launch, "sums", shape, running_logsumexp, LOG_SUM, torch.float32)
