"""What attention with bounded memory control must get right, and what it costs."""

from __future__ import annotations

from functools import partial

from fla.ops._cases import Shape, draw, sequence_cases
from fla.ops.abc.api import chunk_abc, fused_recurrent_abc
from fla.ops.gsa.spec import cost
from fla.utils._spec import SequenceOp, Spec

SEQUENCES = {"q": "B T H K", "k": "B T H K", "v": "B T H V", "s": "B T H M"}
SHAPES = {
    "one chunk and a bit": Shape(2, 67, 2, 16, 8),
    "packed": Shape(1, 70, 1, 16, 8, lengths=(1, 0, 69)),
    "head dim 128": Shape(2, 300, 2, 128, 128, M=64),
}

SPEC = Spec(
    name="abc",
    paper="2110.02488",
    functions=("chunk_abc", "fused_recurrent_abc"),
    backends=("triton", "torch", "reference"),
    cases=(*sequence_cases(chunk_abc, SEQUENCES, SHAPES), *sequence_cases(fused_recurrent_abc, SEQUENCES, SHAPES)),
    cost=cost,
    sequence_ops=(
        SequenceOp(chunk_abc, partial(draw, SEQUENCES)),
        SequenceOp(fused_recurrent_abc, partial(draw, SEQUENCES)),
    ),
    features=frozenset({"state", "packed", "compile", "backward"}),
)
