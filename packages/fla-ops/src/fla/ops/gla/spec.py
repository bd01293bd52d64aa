"""What gated linear attention must get right, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate
from typing import NamedTuple

import torch
import torch.nn.functional as F

from fla.ops.gla.api import chunk_gla, fused_recurrent_gla
from fla.utils._spec import Case, Cost, Made, Results, SequenceOp, Sizes, Spec, seeded

Function = Callable[..., tuple[torch.Tensor, "torch.Tensor | None"]]


class Shape(NamedTuple):
    """One call: sizes, lengths of packed sequences if any, and the strength of the decay."""

    B: int
    T: int
    H: int
    K: int
    V: int
    lengths: tuple[int, ...] = ()
    decay: float = 1 / 16
    reverse: bool = False
    state_v_first: bool = False
    gates: tuple[str, ...] = ("gk",)


CHUNK_SHAPES = {
    "one step": Shape(1, 1, 1, 4, 8),
    "one chunk and a bit": Shape(2, 67, 2, 16, 24),
    "odd head dims": Shape(1, 75, 2, 17, 33, decay=1.0),
    "packed": Shape(1, 90, 2, 16, 16, lengths=(1, 31, 0, 40, 18), decay=1.0),
    "state with V first": Shape(1, 40, 1, 16, 8, state_v_first=True),
    "strong decay": Shape(1, 70, 1, 16, 16, decay=30.0),
    "head dim 64": Shape(2, 200, 3, 64, 64),
    "head dim 128": Shape(2, 300, 2, 128, 128, decay=1.0),
    "head dim 128, packed": Shape(1, 333, 2, 128, 128, lengths=(64, 1, 200, 68)),
    "head dim 256": Shape(1, 130, 2, 256, 256, decay=0.2),
    "keys wider than values": Shape(1, 130, 2, 200, 72, decay=1.0),
    "values wider than keys": Shape(1, 130, 2, 48, 160, decay=1.0),
    "many chunks": Shape(2, 700, 4, 64, 128),
}
RECURRENT_SHAPES = {
    "one step": Shape(3, 1, 2, 16, 16),
    "no decay": Shape(1, 9, 2, 8, 8, gates=()),
    "key decay, reversed": Shape(2, 20, 2, 17, 9, decay=1.0, reverse=True),
    "value decay, V first": Shape(1, 17, 1, 8, 16, gates=("gv",), state_v_first=True),
    "both decays, packed, reversed": Shape(
        1, 40, 2, 8, 8, lengths=(1, 15, 24), decay=1.0, gates=("gk", "gv"), reverse=True
    ),
    "packed, V first": Shape(1, 30, 2, 16, 8, lengths=(10, 20), state_v_first=True),
    "strong decay": Shape(1, 12, 1, 8, 8, decay=30.0),
    "head dim 128": Shape(2, 40, 2, 128, 128),
    "head dim 256": Shape(1, 20, 1, 256, 200, state_v_first=True),
}


def _make(name: str, shape: Shape, function: Function, device: torch.device | str, dtype: torch.dtype) -> Made:
    """Random inputs for ``shape``, every one of them a leaf, and the call that takes them."""
    s, generator = shape, seeded(name)
    sequences = len(s.lengths) or s.B
    dims = {"q": (s.B, s.T, s.H, s.K), "k": (s.B, s.T, s.H, s.K), "v": (s.B, s.T, s.H, s.V)}
    dims |= {"gk": dims["k"], "gv": dims["v"], "initial_state": (sequences, s.H, s.K, s.V)}
    if s.state_v_first:
        dims["initial_state"] = (sequences, s.H, s.V, s.K)
    drawn = {letter: torch.randn(size, generator=generator, dtype=torch.float64) for letter, size in dims.items()}
    for gate in ("gk", "gv"):
        drawn[gate] = F.logsigmoid(drawn[gate]) * s.decay
    names = ["q", "k", "v", *s.gates, "initial_state"]
    leaves = [
        drawn[n].to(device=device, dtype=torch.float32 if n == "initial_state" and dtype != torch.float64 else dtype)
        for n in names
    ]
    cu_seqlens = None
    if s.lengths:
        cu_seqlens = torch.tensor([0, *accumulate(s.lengths)], device=device, dtype=torch.int32)

    def call(*tensors: torch.Tensor, backend: str | None = None) -> Results:
        arguments = dict(zip(names, tensors, strict=True))
        if function is chunk_gla:
            arguments["g"] = arguments.pop("gk")
        else:
            arguments["reverse"] = s.reverse  # type: ignore[assignment]
        o, state = function(
            **arguments,
            output_final_state=True,
            state_v_first=s.state_v_first,
            cu_seqlens=cu_seqlens,
            backend=backend,
        )
        assert state is not None
        return o, state

    return call, [leaf.requires_grad_() for leaf in leaves]


def _cases() -> Iterator[Case]:
    for function, shapes in ((chunk_gla, CHUNK_SHAPES), (fused_recurrent_gla, RECURRENT_SHAPES)):
        for title, shape in shapes.items():
            name = f"{function.__name__}: {title}"
            work = shape.B * shape.T * shape.H * shape.K * shape.V
            tags = {"tiny"} if work <= 90 * 1200 else {"large"} if work > 1 << 24 else set()
            yield Case(name, partial(_make, name, shape, function), frozenset(tags))


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


def _sequence_inputs(
    gates: tuple[str, ...], sizes: Sizes, generator: torch.Generator, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    dims = {"q": "K", "k": "K", "v": "V", "g": "K", "gk": "K", "gv": "V"}
    drawn = {}
    for name in ("q", "k", "v", *gates):
        shape = [sizes[letter] for letter in ("B", "T", "H", dims[name])]
        x = torch.randn(shape, generator=generator, dtype=dtype, device=generator.device)
        drawn[name] = F.logsigmoid(x) if name in gates else x
    return drawn


SPEC = Spec(
    name="gla",
    paper="2312.06635",
    functions=("chunk_gla", "fused_recurrent_gla"),
    backends=("triton", "torch", "reference"),
    cases=tuple(_cases()),
    cost=cost,
    sequence_ops=(
        SequenceOp(chunk_gla, partial(_sequence_inputs, ("g",))),
        SequenceOp(fused_recurrent_gla, partial(_sequence_inputs, ("gk", "gv"))),
    ),
    features=frozenset({"state", "packed", "compile", "backward"}),
)


#: The gradients of q, k and g are three accumulators of one tile. Narrower tiles do not spill but are miscompiled on
#: Hopper (see tiles.py), and eight warps are slower.
AOT_SPILL_ALLOWANCE = {"key_grad_kernel": 640}


def aot_cases() -> Iterator[tuple[str, Callable[[], None]]]:
    """One call of every kernel for each tile that ships, to be compiled without a GPU."""
    for dtype in (torch.bfloat16, torch.float32):
        for key_dim, value_dim in ((64, 64), (128, 128), (256, 256)):
            for packed in (False, True) if key_dim == 128 else (False,):
                lengths = (100, 28) if packed else ()
                shape = Shape(1, 128, 2, key_dim, value_dim, lengths=lengths)
                title = f"{dtype} {key_dim}x{value_dim}{' packed' if packed else ''}".removeprefix("torch.")
                for function in (chunk_gla, fused_recurrent_gla):
                    yield f"{function.__name__} {title}", partial(_launch, title, shape, function, dtype)


def _launch(title: str, shape: Shape, function: Function, dtype: torch.dtype) -> None:
    call, leaves = _make(title, shape, function, "cpu", dtype)
    o, state = call(*leaves, backend="triton")
    torch.autograd.grad([o, state], leaves, [torch.zeros_like(o), torch.zeros_like(state)])
