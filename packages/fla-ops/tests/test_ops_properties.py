"""What holds for every op over sequences, whatever the family: splitting, packing, causality, autograd, compile."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch._dynamo.testing
from hypothesis import given, settings, strategies as st

from fla.utils._spec import SequenceOp, specs
from fla.utils.numerics import get_err_ratio

OPS = [op for spec in specs("fla.ops") for op in spec.sequence_ops]
every_op = pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
TIGHT = 1e-12


def run(op: SequenceOp, inputs: dict[str, torch.Tensor], **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
    o, state = op.function(**inputs, output_final_state=True, **options)
    assert state is not None
    return o, state


def draw(op: SequenceOp, batch: int, time: int, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    sizes = {"B": batch, "T": time, "H": 2, "HV": 4, "K": 8, "V": 12, "M": 6}
    return op.make(sizes, torch.Generator().manual_seed(time), dtype)


def cut(inputs: dict[str, torch.Tensor], start: int, end: int) -> dict[str, torch.Tensor]:
    return {name: x[:, start:end] for name, x in inputs.items()}


@every_op
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_split_with_the_state_passed_on_equals_the_whole(op: SequenceOp, data: st.DataObject) -> None:
    time = data.draw(st.integers(2, 150))
    middle = data.draw(st.integers(1, time - 1))
    inputs = draw(op, 2, time)
    o, state = run(op, inputs)
    o_first, state_first = run(op, cut(inputs, 0, middle))
    o_rest, state_rest = run(op, cut(inputs, middle, time), initial_state=state_first)
    assert get_err_ratio(o, torch.cat([o_first, o_rest], 1)) < TIGHT
    assert get_err_ratio(state, state_rest) < TIGHT


@every_op
@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(0, 80), min_size=1, max_size=5).filter(sum))
def test_packed_equals_one_by_one(op: SequenceOp, lengths: list[int]) -> None:
    ends = torch.tensor([0, *lengths]).cumsum(0)
    inputs = draw(op, 1, sum(lengths))
    start = torch.randn_like(run(op, inputs)[1].expand(len(lengths), -1, -1, -1))
    o, state = run(op, inputs, cu_seqlens=ends, initial_state=start)
    for n, (a, b) in enumerate(zip(ends.tolist(), ends.tolist()[1:])):
        if a == b:
            assert torch.equal(state[n], start[n])
            continue
        o_alone, state_alone = run(op, cut(inputs, a, b), initial_state=start[n : n + 1])
        assert get_err_ratio(o_alone, o[:, a:b]) < TIGHT
        assert get_err_ratio(state_alone, state[n : n + 1]) < TIGHT


@every_op
def test_no_output_depends_on_a_later_step(op: SequenceOp) -> None:
    inputs = draw(op, 1, 100)
    o, _ = run(op, inputs)
    changed = {name: torch.cat([x[:, :70], x[:, 70:] * 0.5 - 0.1], 1) for name, x in inputs.items()}
    assert torch.equal(o[:, :70], run(op, changed)[0][:, :70])


@every_op
def test_gradcheck_in_float64(op: SequenceOp) -> None:
    inputs = {name: x.requires_grad_() for name, x in draw(op, 1, 5).items()}
    state = torch.randn_like(run(op, inputs)[1]).requires_grad_()

    def call(*tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        *given_inputs, initial_state = tensors
        return run(op, dict(zip(inputs, given_inputs)), initial_state=initial_state)

    assert torch.autograd.gradcheck(call, (*inputs.values(), state))


@every_op
def test_a_second_derivative_is_refused(op: SequenceOp) -> None:
    inputs = {name: x.requires_grad_() for name, x in draw(op, 1, 3).items()}
    o, _ = run(op, inputs)
    (dq,) = torch.autograd.grad(o.sum(), inputs["q"], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable|does not require grad"):
        torch.autograd.grad(dq.sum(), inputs["v"])


@every_op
def test_inputs_in_any_memory_layout(op: SequenceOp) -> None:
    inputs = draw(op, 2, 40)
    scattered = {name: x.transpose(1, 2).contiguous().transpose(1, 2) for name, x in inputs.items()}
    assert get_err_ratio(run(op, inputs)[0], run(op, scattered)[0]) < TIGHT


@every_op
def test_autocast_leaves_the_result_alone(op: SequenceOp) -> None:
    inputs = draw(op, 1, 40, torch.float32)
    o, state = run(op, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        o_autocast, state_autocast = run(op, inputs)
    assert torch.equal(o, o_autocast)
    assert torch.equal(state, state_autocast)


@every_op
def test_compiles_whole_and_only_once_for_every_length(op: SequenceOp) -> None:
    torch._dynamo.reset()
    names = tuple(draw(op, 1, 2))
    graphs = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")

    @torch.compile(fullgraph=True, dynamic=True, backend=graphs)
    def compiled(*tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return run(op, dict(zip(names, tensors)))

    for time in (20, 37, 64, 90):
        eager_inputs = {name: x.requires_grad_() for name, x in draw(op, 2, time, torch.float32).items()}
        o, state = run(op, eager_inputs)
        expected = torch.autograd.grad(o.sum() + state.sum(), list(eager_inputs.values()))
        o_compiled, state_compiled = compiled(*eager_inputs.values())
        got = torch.autograd.grad(o_compiled.sum() + state_compiled.sum(), list(eager_inputs.values()))
        for a, b in zip((o, state, *expected), (o_compiled, state_compiled, *got)):
            assert get_err_ratio(a, b) < 1e-6
    assert graphs.frame_count == 1


@every_op
def test_compiles_with_packed_sequences(op: SequenceOp) -> None:
    torch._dynamo.reset()
    ends = torch.tensor([0, 11, 30, 64])
    inputs = draw(op, 1, 64, torch.float32)
    compiled = torch.compile(lambda *x: run(op, dict(zip(inputs, x)), cu_seqlens=ends), fullgraph=True, backend="eager")
    assert get_err_ratio(run(op, inputs, cu_seqlens=ends)[0], compiled(*inputs.values())[0]) < 1e-6
