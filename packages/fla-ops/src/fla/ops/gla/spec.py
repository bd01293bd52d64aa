"""Cases that gated linear attention must get right, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from fla.ops._shared.cases import Shape, draw, launch, sequence_cases
from fla.ops.gla.api import chunk_gla, fused_recurrent_gla
from fla.utils.spec import Cost, SequenceOp, Sizes, Spec

QKV = {"q": "B T H K", "k": "B T H K", "v": "B T H V"}
STATE = {"initial_state": "N H K V"}
CHUNK = {**QKV, "g": "B T H K -", **STATE}
RECURRENT = {**QKV, "gk": "B T H K -", "gv": "B T H V -", **STATE}
V_FIRST = {"state_v_first": True}

CHUNK_SHAPES = {
    "one step": Shape(1, 1, 8, 4, 8),
    "one chunk and a bit": Shape(2, 67, 2, 16, 24),
    "odd head dims": Shape(1, 75, 2, 17, 33, decay=1.0),
    "packed": Shape(1, 90, 2, 16, 16, lengths=(1, 31, 0, 40, 18), decay=1.0),
    "state with V first": Shape(1, 40, 1, 16, 8, options=V_FIRST),
    "strong decay": Shape(1, 70, 1, 16, 16, decay=30.0),
    "head dim 64": Shape(2, 200, 3, 64, 64),
    "head dim 128": Shape(2, 300, 2, 128, 128, decay=1.0),
    "head dim 128, packed": Shape(1, 333, 2, 128, 128, lengths=(64, 1, 200, 68)),
    "head dim 256": Shape(1, 130, 2, 256, 256, decay=0.2),
    "keys wider than values": Shape(1, 130, 2, 200, 72, decay=1.0),
    "values wider than keys": Shape(1, 130, 2, 48, 160, decay=1.0),
    "heads wider than any block": Shape(1, 70, 1, 300, 520),
    "many chunks": Shape(2, 700, 4, 64, 128),
}
RECURRENT_SHAPES = {
    "one step": Shape(3, 1, 2, 16, 16, without=("gv",)),
    "no decay": Shape(1, 9, 2, 8, 8, without=("gk", "gv")),
    "key decay, reversed": Shape(2, 20, 2, 17, 9, decay=1.0, without=("gv",), options={"reverse": True}),
    "value decay, V first": Shape(1, 17, 1, 8, 16, without=("gk",), options=V_FIRST),
    "both decays, packed, reversed": Shape(1, 40, 2, 8, 8, lengths=(1, 15, 24), decay=1.0, options={"reverse": True}),
    "packed, V first": Shape(1, 30, 2, 16, 8, lengths=(10, 20), without=("gv",), options=V_FIRST),
    "strong decay": Shape(1, 12, 1, 8, 8, decay=30.0, without=("gv",)),
    "head dim 128": Shape(2, 40, 2, 128, 128, without=("gv",)),
    "head dim 256": Shape(1, 20, 1, 256, 200, without=("gv",), options=V_FIRST),
    "heads wider than any block": Shape(1, 20, 1, 300, 520, without=("gv",), options=V_FIRST),
    "wide heads whose values decay": Shape(1, 20, 1, 300, 40, without=("gk",), decay=1.0),
}


def cost(sizes: Sizes, element: int, chunk: int = 64) -> Cost:
    """Every input read once and every output written once; the chunked algorithm's matrix products."""
    heads = sizes["B"] * sizes["T"] * sizes["H"]
    k, v = sizes["K"], sizes["V"]
    return Cost(
        bytes_fwd=heads * element * (3 * k + 2 * v),
        bytes_bwd=heads * element * (6 * k + 3 * v),
        flops_fwd=heads * (2 * chunk * (k + v) + 4 * k * v),
        flops_bwd=heads * (5 * chunk * (k + v) + 10 * k * v),
    )


SPEC = Spec(
    name="gla",
    paper="2312.06635",
    functions=("chunk_gla", "fused_recurrent_gla"),
    backends=("triton", "torch", "reference"),
    cases=(
        *sequence_cases(chunk_gla, CHUNK, CHUNK_SHAPES),
        *sequence_cases(fused_recurrent_gla, RECURRENT, RECURRENT_SHAPES),
    ),
    cost=cost,
    sequence_ops=(
        SequenceOp(chunk_gla, partial(draw, {**QKV, "g": CHUNK["g"]})),
        SequenceOp(fused_recurrent_gla, partial(draw, {**QKV, "gk": RECURRENT["gk"], "gv": RECURRENT["gv"]})),
    ),
    features=frozenset({"state", "packed", "compile", "backward"}),
)


#: The gradients of q, k and g are three accumulators of one tile, and strong decays are a branch of their own. Narrower
#: tiles do not spill but are miscompiled on Hopper (see tiles.py), and eight warps are slower.
AOT_SPILL_ALLOWANCE = {"channel_decay_key_bwd_kernel": 1088, "channel_decay_output_fwd_kernel": 384}


def aot_cases() -> Iterator[tuple[str, Callable[[], None]]]:
    """One call of every kernel for each tile that ships, to be compiled without a GPU."""
    for dtype, dim, lengths in (
        (torch.bfloat16, 64, ()),
        (torch.bfloat16, 128, ()),
        (torch.bfloat16, 128, (100, 28)),
        (torch.bfloat16, 256, ()),
        (torch.float32, 128, ()),
        (torch.float32, 128, (100, 28)),
    ):
        shape = Shape(1, 128, 2, dim, dim, lengths=lengths, without=("gv",))
        title = f"{dtype} {dim}{' packed' if lengths else ''}".removeprefix("torch.")
        for function, operands in ((chunk_gla, CHUNK), (fused_recurrent_gla, RECURRENT)):
            yield f"{function.__name__} {title}", partial(launch, title, shape, function, operands, dtype)
