"""What the design promises of every op on a GPU: compiled, captured, on any stream and GPU, past 2**31 elements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from fla.ops._shared.cases import flatten
from fla.utils.numerics import get_err_ratio, rounding_band
from fla.utils.spec import SequenceOp, specs

OPS = [op for spec in specs("fla.ops") for op in spec.sequence_ops]
TIMED_SIZES = {op.name: spec.timed_sizes for spec in specs("fla.ops") for op in spec.sequence_ops}
every_op = pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")
SIZES = {"B": 2, "T": 150, "H": 2, "HV": 4, "K": 32, "V": 64, "M": 16}
DTYPE = torch.bfloat16
Run = Callable[..., list[torch.Tensor]]


def draw(op: SequenceOp, packed: bool, device: torch.device) -> tuple[list[str], list[torch.Tensor]]:
    """Names and values of a call's tensors, the boundaries of packed sequences last among them."""
    sizes = {**SIZES, "B": 1, "T": 300} if packed else SIZES
    inputs = op.make(sizes, torch.Generator().manual_seed(0), DTYPE)
    names, leaves = list(inputs), [x.to(device).requires_grad_() for x in inputs.values()]
    if packed:
        names, leaves = [*names, "cu_seqlens"], [*leaves, torch.tensor([0, 7, 7, 130, 300], device=device)]
    return names, leaves


def both_passes(op: SequenceOp, names: Sequence[str], function: Callable[..., Any] | None = None) -> Run:
    """Results and gradients of the tensors that are given."""

    def run(*tensors: torch.Tensor) -> list[torch.Tensor]:
        leaves = [x for x in tensors if x.is_floating_point()]
        call = function or op.function
        results = list(flatten(call(**dict(zip(names, tensors)), output_final_state=True)))
        cotangents = [torch.linspace(-1, 1, x.numel(), device=x.device).to(x.dtype).view(x.shape) for x in results]
        return [*(x.detach() for x in results), *torch.autograd.grad(results, leaves, cotangents)]

    return run


def check_same(expected: Sequence[torch.Tensor], got: Sequence[torch.Tensor]) -> None:
    """Two runs of the same kernels: sums of atomic additions and of other tiles differ by rounding only."""
    for index, (a, b) in enumerate(zip(expected, got, strict=True)):
        # The logarithm of nothing, where a sequence is empty.
        nothing = a == -torch.inf
        assert torch.equal(nothing, b == -torch.inf)
        error = get_err_ratio(a.masked_fill(nothing, 0), b.masked_fill(nothing, 0))
        assert error <= rounding_band(DTYPE), f"tensor {index}: {error:.2e}"


@every_op
@pytest.mark.parametrize("packed", [False, True], ids=["dense", "packed"])
def test_compiles_whole(op: SequenceOp, packed: bool, device: torch.device) -> None:
    torch._dynamo.reset()
    names, tensors = draw(op, packed, device)
    compiled = torch.compile(op.function, fullgraph=True)
    check_same(both_passes(op, names)(*tensors), both_passes(op, names, compiled)(*tensors))


@every_op
@pytest.mark.parametrize("packed", [False, True], ids=["dense", "packed"])
def test_is_captured_in_a_graph_that_sees_new_values(op: SequenceOp, packed: bool, device: torch.device) -> None:
    names, tensors = draw(op, packed, device)
    run = both_passes(op, names)
    # The graph has operands of its own, and runs on its own stream before it is captured, as PyTorch asks for.
    held = [x.detach().clone().requires_grad_(x.requires_grad) for x in tensors]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run(*held)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run(*held)
    for scale in (1.0, 0.5):
        fresh = [(x * scale).detach().requires_grad_() if x.is_floating_point() else x for x in tensors]
        if packed and scale != 1.0:
            fresh[-1] = torch.tensor([0, 100, 101, 260, 300], device=device)
        with torch.no_grad():
            for target, value in zip(held, fresh):
                target.copy_(value)
        graph.replay()
        check_same(run(*fresh), captured)


@every_op
@pytest.mark.parametrize("packed", [False, True], ids=["dense", "packed"])
def test_runs_on_the_stream_that_it_is_called_on(op: SequenceOp, packed: bool, device: torch.device) -> None:
    names, tensors = draw(op, packed, device)
    expected = both_passes(op, names)(*tensors)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        late = [torch.zeros_like(x).requires_grad_(x.requires_grad) for x in tensors]
        torch.cuda._sleep(100_000_000)
        with torch.no_grad():
            for target, value in zip(late, tensors):
                target.copy_(value)
        got = both_passes(op, names)(*late)
    torch.cuda.current_stream().wait_stream(stream)
    check_same(expected, got)


@every_op
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are not two GPUs")
def test_runs_on_a_gpu_that_is_not_the_current_one(op: SequenceOp) -> None:
    names, tensors = draw(op, True, torch.device("cuda", 0))
    other = [x.detach().to("cuda:1").requires_grad_(x.requires_grad) for x in tensors]
    check_same(both_passes(op, names)(*tensors), both_passes(op, names)(*other))
    assert torch.cuda.current_device() == 0


@every_op
@pytest.mark.large
@pytest.mark.unpoisoned
def test_more_elements_than_an_int32_counts(op: SequenceOp, device: torch.device) -> None:
    """Rows at both ends and in the middle of a batch, against each alone."""
    sizes = {**SIZES, "B": 1, "T": 1024, "H": 16, "HV": 16, "K": 64, "V": 128, **TIMED_SIZES[op.name]}
    row = max(x.numel() for x in op.make(sizes, torch.Generator(device), DTYPE).values())
    rows = 2**31 // row + 3
    inputs = op.make({**sizes, "B": rows}, torch.Generator(device).manual_seed(0), DTYPE)
    names, leaves = list(inputs), [x.requires_grad_() for x in inputs.values()]
    results = list(flatten(op.function(**dict(zip(names, leaves)), output_final_state=True)))
    together = [*results[:1], *torch.autograd.grad(results[0], leaves, torch.ones_like(results[0]))]
    for row in (0, rows // 2, rows - 1):
        alone = [x[row : row + 1].detach().requires_grad_() for x in leaves]
        o = next(flatten(op.function(**dict(zip(names, alone)), output_final_state=True)))
        check_same([o, *torch.autograd.grad(o, alone, torch.ones_like(o))], [x[row : row + 1] for x in together])
