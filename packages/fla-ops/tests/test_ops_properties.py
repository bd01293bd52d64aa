"""What holds for every op over sequences, whatever the family: splitting, packing, causality, autograd, compile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from hypothesis import given, settings, strategies as st

from fla.ops._shared.cases import flatten
from fla.utils.numerics import agreement, get_err_ratio, held, share_of_limit
from fla.utils.spec import SequenceOp, specs
from fla.utils.testing.rewrites import REWRITES

OPS = [op for spec in specs("fla.ops") for op in spec.sequence_ops]
every_op = pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
TIGHT = agreement(torch.float64, 4096)
FLOAT32 = agreement(torch.float32, 256)
#: A tensor with the sequences in its first dimension, or a tuple of such.
State = Any


def run(op: SequenceOp, inputs: dict[str, torch.Tensor], **options: Any) -> tuple[torch.Tensor, State]:
    o, state = op.function(**inputs, output_final_state=True, **options)
    assert state is not None
    return o, state


def apply(function: Callable[[torch.Tensor], torch.Tensor], state: State) -> State:
    return function(state) if isinstance(state, torch.Tensor) else tuple(apply(function, x) for x in state)


def agree(expected: State, got: State, tolerance: float = TIGHT) -> bool:
    pairs = zip(flatten(expected), flatten(got), strict=True)
    return all(held("agreement", share_of_limit(get_err_ratio(a, b), tolerance)) for a, b in pairs)


def equal(expected: State, got: State) -> bool:
    return all(torch.equal(a, b) for a, b in zip(flatten(expected), flatten(got), strict=True))


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
    assert agree(o, torch.cat([o_first, o_rest], 1))
    assert agree(state, state_rest)


@every_op
@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(0, 80), min_size=1, max_size=5).filter(sum))
def test_packed_equals_one_by_one(op: SequenceOp, lengths: list[int]) -> None:
    ends = torch.tensor([0, *lengths]).cumsum(0)
    inputs = draw(op, 1, sum(lengths))
    # What some other sequences left behind.
    start = run(op, draw(op, len(lengths), 3))[1]
    o, state = run(op, inputs, cu_seqlens=ends, initial_state=start)
    for n, (a, b) in enumerate(zip(ends.tolist(), ends.tolist()[1:])):
        start_alone, state_n = (apply(lambda x, n=n: x[n : n + 1], whole) for whole in (start, state))
        if a == b:
            assert equal(start_alone, state_n)
            continue
        o_alone, state_alone = run(op, cut(inputs, a, b), initial_state=start_alone)
        assert agree(o_alone, o[:, a:b])
        assert agree(state_alone, state_n)


@pytest.mark.parametrize("how", REWRITES)
@every_op
def test_boundaries_rewritten_in_place_are_read_again(op: SequenceOp, how: str, device: torch.device) -> None:
    inputs = {name: x.to(device) for name, x in draw(op, 1, 12, torch.float32).items()}
    ends = REWRITES[how]([0, 4, 12], device)

    def results(cu_seqlens: torch.Tensor) -> list[torch.Tensor]:
        if cu_seqlens.is_inference():
            return list(flatten(run(op, inputs, cu_seqlens=cu_seqlens)))
        leaves = {name: x.clone().requires_grad_() for name, x in inputs.items()}
        found = list(flatten(run(op, leaves, cu_seqlens=cu_seqlens)))
        return [*found, *torch.autograd.grad(sum(x.sum() for x in found), list(leaves.values()))]

    before = results(ends.tensor)
    ends.rewrite([0, 8, 12])
    after = results(ends.tensor)
    assert equal(results(torch.tensor([0, 8, 12], device=device))[: len(after)], after)
    assert not torch.equal(before[0], after[0])


@every_op
def test_no_output_depends_on_a_later_step(op: SequenceOp) -> None:
    inputs = draw(op, 1, 100)
    o, _ = run(op, inputs)
    changed = {name: torch.cat([x[:, :70], x[:, 70:] * 0.5 - 0.1], 1) for name, x in inputs.items()}
    assert torch.equal(o[:, :70], run(op, changed)[0][:, :70])


@every_op
def test_gradcheck_in_float64(op: SequenceOp) -> None:
    inputs = {name: x.requires_grad_() for name, x in draw(op, 1, 5).items()}
    start = run(op, draw(op, 1, 3))[1]
    states = [x.detach().requires_grad_() for x in flatten(start)]

    def call(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        given_states = iter(tensors[len(inputs) :])
        initial_state = apply(lambda _: next(given_states), start)
        return tuple(flatten(run(op, dict(zip(inputs, tensors)), initial_state=initial_state)))

    # By random directions; element by element gradients are compared with the reference's, case by case.
    assert torch.autograd.gradcheck(call, (*inputs.values(), *states), fast_mode=True)


@every_op
def test_inputs_in_any_memory_layout(op: SequenceOp) -> None:
    inputs = draw(op, 2, 40)
    scattered = {name: x.transpose(1, 2).contiguous().transpose(1, 2) for name, x in inputs.items()}
    assert agree(run(op, inputs)[0], run(op, scattered)[0])


@every_op
def test_autocast_leaves_the_result_alone(op: SequenceOp) -> None:
    inputs = draw(op, 1, 40, torch.float32)
    expected = run(op, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        assert equal(expected, run(op, inputs))


@every_op
def test_compiles_whole_and_only_once_for_every_length(op: SequenceOp) -> None:
    torch._dynamo.reset()
    names = tuple(draw(op, 1, 2))
    graphs = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    made = []

    @torch.compile(fullgraph=True, dynamic=True, backend=graphs)
    def compiled(*tensors: torch.Tensor) -> tuple[torch.Tensor, State]:
        return run(op, dict(zip(names, tensors)))

    for time in (20, 37, 64, 90):
        eager_inputs = {name: x.requires_grad_() for name, x in draw(op, 2, time, torch.float32).items()}
        leaves = list(eager_inputs.values())
        expected, got = (list(flatten(results)) for results in (run(op, eager_inputs), compiled(*leaves)))
        assert agree(expected, got, FLOAT32)
        gradients = [torch.autograd.grad(sum(x.sum() for x in results), leaves) for results in (expected, got)]
        assert agree(*gradients, FLOAT32)
        made.append(graphs.frame_count)
    # Some versions of PyTorch compile the first one twice over.
    assert len(set(made)) == 1, made


@every_op
def test_compiles_with_packed_sequences(op: SequenceOp) -> None:
    torch._dynamo.reset()
    ends = torch.tensor([0, 11, 30, 64])
    inputs = draw(op, 1, 64, torch.float32)
    compiled = torch.compile(lambda *x: run(op, dict(zip(inputs, x)), cu_seqlens=ends), fullgraph=True, backend="eager")
    assert agree(run(op, inputs, cu_seqlens=ends)[0], compiled(*inputs.values())[0], FLOAT32)


#: Whether decays are mild is one choice for a whole call, so a wrong one may change how others' results are rounded.
DECAYS = {"g", "gk", "gv", "w", "s"}
WRONG = (float("nan"), float("inf"), float("-inf"))


def poisoned(inputs: dict[str, torch.Tensor], step: int) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """What was done, and the inputs with it: one number of one operand at ``step`` is not finite."""
    for name, x in inputs.items():
        for value in WRONG:
            wrong = x.clone()
            wrong[0, step].flatten()[0] = value
            yield f"{name} is {value}", {**inputs, name: wrong}


def same(name: str, expected: State, got: State) -> bool:
    return agree(expected, got) if name.split()[0] in DECAYS else equal(expected, got)


@every_op
def test_what_is_not_finite_stays_in_its_packed_sequence(op: SequenceOp, device: torch.device) -> None:
    starts, others = torch.tensor([0, 20, 95, 110]), [*range(20), *range(95, 110)]
    cu_seqlens = starts.to(device)
    dtype = torch.float64 if device.type == "cpu" else torch.float32
    inputs, before = ({n: x.to(device) for n, x in draw(op, *sizes, dtype).items()} for sizes in ((1, 110), (3, 3)))
    start = run(op, before)[1]

    def results(inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        """Outputs, states and all gradients, of the first and last sequence alone."""
        leaves = {name: x.clone().requires_grad_() for name, x in inputs.items()}
        states = [x.detach().clone().requires_grad_() for x in flatten(start)]
        given = iter(states)
        found = list(flatten(run(op, leaves, cu_seqlens=cu_seqlens, initial_state=apply(lambda _: next(given), start))))
        gradients = torch.autograd.grad(found, [*leaves.values(), *states], [torch.ones_like(x) for x in found])
        by_step = [found[0].detach(), *gradients[: len(leaves)]]
        by_sequence = [*(x.detach() for x in found[1:]), *gradients[len(leaves) :]]
        return [*(x[:, others] for x in by_step), *(x[[0, 2]] for x in by_sequence)]

    expected = results(inputs)
    leaks = [what for what, wrong in poisoned(inputs, 60) if not same(what, expected, results(wrong))]
    assert not leaks


@every_op
@pytest.mark.parametrize("packed", [False, True])
def test_what_is_not_finite_reaches_no_earlier_output_on_the_cpu(op: SequenceOp, packed: bool) -> None:
    options = {"cu_seqlens": torch.tensor([0, 10, 90])} if packed else {}
    inputs = draw(op, 1 if packed else 2, 90)
    expected = run(op, inputs, **options)[0]
    leaks = []
    for what, wrong in poisoned(inputs, 40):
        o = run(op, wrong, **options)[0]
        # Other rows of the batch have no earlier or later step in common with this one.
        if not same(what, [expected[:1, :40], expected[1:]], [o[:1, :40], o[1:]]):
            leaks.append(what)
    assert not leaks
