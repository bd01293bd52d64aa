"""The running log-sum-exp, and the memory it normalises, against their definitions in float64."""

from __future__ import annotations

import pytest
import torch

from fla.ops.utils import normalised_writes, running_logsumexp
from fla.utils.numerics import assert_close

#: Rows, steps, boundaries of packed sequences.
CASES = {
    "one step": (2, 1, None),
    "dense": (2, 37, None),
    "a power of two": (1, 32, None),
    "packed": (1, 41, [0, 1, 1, 18, 40, 41]),
}
every_case = pytest.mark.parametrize(("rows", "steps", "ends"), CASES.values(), ids=CASES)
Results = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def spans(x: torch.Tensor, ends: list[int] | None) -> list[torch.Tensor]:
    return list(x) if ends is None else [x[0, start:end] for start, end in zip(ends, ends[1:])]


def by_definition(
    s: torch.Tensor, v: torch.Tensor, initial: torch.Tensor | None, memory: torch.Tensor, ends: list[int] | None
) -> Results:
    """z, the memory after every step as a softmax over all that was written, and the last z of each sequence."""
    found, last = [], []
    for n, (row, values) in enumerate(zip(spans(s, ends), spans(v, ends))):
        before = torch.full_like(memory[n], -torch.inf) if initial is None else initial[n]
        scores, written = torch.cat((before[None], row)), torch.cat((memory[n, None], values))
        prefixes = range(2, len(scores) + 1)
        found += [(scores[:t].logsumexp(0), (scores[:t].softmax(0) * written[:t]).sum(0)) for t in prefixes]
        last.append(scores.logsumexp(0) if len(row) else before)
    z, memories = (torch.stack(x).view(s.shape) for x in zip(*found))
    return z, memories, torch.stack(last)


def by_recurrence(
    s: torch.Tensor, v: torch.Tensor, initial: torch.Tensor | None, memory: torch.Tensor, ends: list[int] | None
) -> Results:
    cu_seqlens = None if ends is None else torch.tensor(ends, dtype=torch.int32)
    write, decay, last = normalised_writes(s, initial, cu_seqlens)
    assert write.dtype == decay.dtype == last.dtype == s.dtype
    assert (decay <= 0).all()
    assert decay.isfinite().all()
    memories = []
    for n, steps in enumerate(zip(*(spans(x, ends) for x in (write, decay, v)))):
        state = memory[n]
        for write_t, decay_t, v_t in zip(*steps):
            memories.append(state := decay_t.exp() * state + write_t * v_t)
    return running_logsumexp(s, initial, cu_seqlens), torch.stack(memories).view(s.shape), last


@every_case
@pytest.mark.parametrize("spread", [1.0, 300.0])
@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_agrees_with_its_definition(
    rows: int, steps: int, ends: list[int] | None, spread: float, started: bool, dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(steps)
    s, v = torch.randn(2, rows, steps, 2, 3, dtype=torch.float64)
    initial, memory = torch.randn(2, rows if ends is None else len(ends) - 1, 2, 3, dtype=torch.float64)
    s, v, initial = ((x * scale).to(dtype).requires_grad_() for x, scale in ((s, spread), (v, 1), (initial, spread)))
    memory = memory.to(dtype) if started else torch.zeros_like(memory, dtype=dtype)

    def run(function, *tensors):  # type: ignore[no-untyped-def]
        s, v, initial, memory = tensors
        return function(s, v, initial if started else None, memory, ends)

    exact = [x.detach().double().requires_grad_() for x in (s, v, initial, memory)]
    expected, got = run(by_definition, *exact), run(by_recurrence, s, v, initial, memory)
    finite = expected[2].isfinite()
    assert torch.equal(finite, got[2].isfinite())
    losses = []
    for name, truth, result in zip(("z", "memory", "last"), expected, got):
        keep = finite if name == "last" else slice(None)
        assert_close(name, truth[keep], result[keep], tolerance)
        weight = torch.randn_like(truth[keep])
        losses.append([(weight.to(x.dtype) * x[keep]).sum() for x in (truth, result)])
    wanted = 3 if started else 2
    truth_loss, loss = (sum(x) for x in zip(*losses))
    gradients = torch.autograd.grad(loss, [s, v, initial][:wanted])
    for name, truth, result in zip(["s", "v", "initial"], torch.autograd.grad(truth_loss, exact[:wanted]), gradients):
        assert_close(f"gradient of {name}", truth, result, tolerance)


def test_goes_on_from_minus_infinity_as_from_nothing() -> None:
    s, cu_seqlens = torch.randn(1, 9, 4), torch.tensor([0, 4, 4, 9])
    nothing = torch.full((3, 4), -torch.inf, requires_grad=True)
    results = [normalised_writes(s, initial, cu_seqlens) for initial in (None, nothing)]
    for expected, got in zip(*results):
        assert torch.equal(expected, got)
    (gradient,) = torch.autograd.grad(sum(x[x.isfinite()].sum() for x in results[1]), nothing)
    assert torch.equal(gradient, torch.zeros_like(nothing))


def test_rounding_does_not_grow_with_the_length() -> None:
    s = torch.randn(1, 20000, 2)
    assert_close("z", s.double().logcumsumexp(1), running_logsumexp(s), 2e-7)
    z = running_logsumexp(s.bfloat16())
    assert z.dtype == torch.float32
    assert_close("z of bfloat16", s.bfloat16().double().logcumsumexp(1), z, 2e-7)


def test_writes_in_half_precision() -> None:
    s, cotangents = torch.randn(2, 60, 4, requires_grad=True), torch.randn(2, 2, 60, 4)
    wide, narrow = normalised_writes(s), normalised_writes(s, dtype=torch.bfloat16)
    assert torch.equal(wide[0].bfloat16(), narrow[0])
    assert all(torch.equal(*pair) for pair in zip(wide[1:], narrow[1:]))
    truth, result = (
        torch.autograd.grad(x[:2], s, [c.to(y.dtype) for c, y in zip(cotangents, x)])[0] for x in (wide, narrow)
    )
    assert_close("gradient of s", truth, result, torch.finfo(torch.bfloat16).eps)


@pytest.mark.parametrize("packed", [False, True])
def test_compiles_whole(packed: bool) -> None:
    torch._dynamo.reset()
    s, initial = torch.randn(1, 21, 3, requires_grad=True), torch.randn(2 if packed else 1, 3, requires_grad=True)
    cu_seqlens = torch.tensor([0, 8, 21]) if packed else None

    def gradients(function):  # type: ignore[no-untyped-def]
        results = function(s, initial, cu_seqlens)
        return [*results, *torch.autograd.grad(sum(x.square().sum() for x in results), (s, initial))]

    compiled = torch.compile(normalised_writes, fullgraph=True, backend="aot_eager")
    for expected, got in zip(gradients(normalised_writes), gradients(compiled)):
        assert_close("compiled", expected, got, 1e-6)


def test_refuses_a_dtype_that_is_not_floating() -> None:
    with pytest.raises(TypeError, match=r"dtype: expected a floating dtype, got torch\.int32"):
        normalised_writes(torch.zeros(1, 3), dtype=torch.int32)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1.0],), TypeError, "s: expected a tensor"),
        ((torch.zeros(3),), ValueError, r"s: expected shape \[B, T, ...\].*got \[3\]"),
        ((torch.zeros(1, 0, 3),), ValueError, r"s: .*nothing of size 0, got \[1, 0, 3\]"),
        ((torch.zeros(1, 3, dtype=torch.int32),), TypeError, "s: expected a floating dtype"),
        ((torch.zeros(1, 3, 2), torch.zeros(2, 2)), ValueError, r"initial: .*\[1, 2\], got \[2, 2\]"),
        ((torch.zeros(2, 3), None, torch.tensor([0, 3])), ValueError, "cu_seqlens: .*B=2"),
    ],
)
def test_bad_input_is_refused_by_name(arguments: tuple, error: type[Exception], message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(error, match=message):
        running_logsumexp(*arguments)
