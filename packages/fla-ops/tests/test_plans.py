"""Plans: what is recorded at the first call of a kind is right for every other call of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from inspect import signature
from typing import Any

import pytest
import torch

from fla.utils import plans
from fla.utils.plans import Planned, is_recording, keep, kind_function


class Counted:
    """A function that knows how often it ran; a plan does not run it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.runs = function, 0

    def __call__(self, *arguments: Any) -> Any:
        self.runs += 1
        return self.function(*arguments)


def planned(function: Callable[..., Any], **options: Any) -> tuple[Counted, Callable[..., Any]]:
    counted = Counted(function)
    count = len(signature(function).parameters)
    plan = Planned(counted, count, range(count), **options)
    return counted, lambda *arguments: plan(counted, *arguments)


def middle(x: torch.Tensor, y: torch.Tensor, scale: float) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """Views, memory that is written, results that are views, None."""
    out = x.new_empty(x.shape)
    torch.mul(x, scale, out=out)
    out[1:] += y[:-1].contiguous()
    sums = out.sum(0)
    return out.unflatten(1, (2, -1)), None, sums.view(2, -1).to(torch.float64)


def agree(expected: Any, got: Any) -> bool:
    return all(a is b is None or (a.stride() == b.stride() and torch.equal(a, b)) for a, b in zip(expected, got))


def test_a_call_of_a_known_kind_repeats_what_the_first_did() -> None:
    counted, call = planned(middle)
    for seed in range(4):
        torch.manual_seed(seed)
        x, y = torch.randn(2, 5, 8)
        assert agree(middle(x, y, 0.5), call(x, y, 0.5))
    assert counted.runs == 1


def test_tensors_that_share_memory_at_first_need_not_later() -> None:
    first, second, _ = torch.randn(5, 24).chunk(3, -1)
    for together in ((first, first), (first, second)):
        counted, call = planned(middle)
        for x, y in (together, torch.randn(2, 5, 24)[..., 8:16]):
            assert agree(middle(x, y, 2.0), call(x, y, 2.0))
        assert counted.runs == 1


KINDS: dict[str, Callable[[torch.Tensor], tuple[Any, ...]]] = {
    "shape": lambda x: (x[:3], x[:3], 0.5),
    "strides": lambda x: (x.t().contiguous().t(), x, 0.5),
    "dtype": lambda x: (x, x.double(), 0.5),
    "alignment": lambda x: (torch.cat([x.flatten(), x[0]])[1 : 1 + x.numel()].view_as(x), x, 0.5),
    "option": lambda x: (x, x, 0.25),
}


@pytest.mark.parametrize("what", KINDS)
def test_another_kind_has_a_plan_of_its_own(what: str) -> None:
    counted, call = planned(middle)
    x = torch.randn(5, 8)
    for arguments in ((x, x, 0.5), KINDS[what](x)) * 2:
        assert agree(middle(*arguments), call(*arguments))
    assert counted.runs == 2


def test_values_do_not_make_a_kind_but_none_does() -> None:
    x, y = torch.zeros(2, 4)
    kind_of = kind_function(3, (0, 1), ())
    assert kind_of(x, None, 1.0) == kind_of(y, None, 1.0)
    assert kind_of(x, None, 1.0) != kind_of(None, x, 1.0)


def test_what_writes_into_its_arguments_goes_on_doing_so() -> None:
    _, call = planned(lambda x, y: y.add_(x).sum())
    x = torch.ones(3)
    total = torch.zeros(3)
    for count in range(1, 4):
        assert call(x, total) == 3 * count
        assert torch.equal(total, torch.full((3,), float(count)))


def test_what_looks_at_values_is_run_each_time() -> None:
    counted, call = planned(lambda x: x * 2 if x.sum() > 0 else x * 3)
    assert call(torch.ones(2)).tolist() == [2, 2]
    assert call(-torch.ones(2)).tolist() == [-3, -3]
    assert counted.runs == 2


def test_an_argument_that_is_returned_is_the_one_that_was_given() -> None:
    _, call = planned(lambda x: x.view(-1))
    for x in torch.randn(3, 2, 2):
        assert call(x).data_ptr() == x.data_ptr()


def test_memory_is_freed_after_it_was_read_last() -> None:
    def chain(x: torch.Tensor) -> torch.Tensor:
        for _ in range(20):
            x = x + 1
        return x

    _, call = planned(chain)
    call(torch.zeros(1000))
    alive: list[int] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            import gc

            alive.append(sum(1 for o in gc.get_objects() if type(o) is torch.Tensor and o.shape == (1000,)))
            return op(*args, **(kwargs or {}))

    x = torch.zeros(1000)
    with Watch():
        call(x)
    assert len(alive) == 20
    assert max(alive) - alive[0] <= 2


def test_kept_tensors_belong_to_the_plan_and_are_made_outside_of_it() -> None:
    made: list[torch.Tensor] = []

    def table() -> torch.Tensor:
        if not made:
            made.append(torch.arange(4.0))
        return made[0]

    counted, call = planned(lambda x: x + keep(table))
    for x in torch.randn(3, 4):
        assert torch.equal(call(x), x + torch.arange(4.0))
    assert counted.runs == len(made) == 1


def test_a_tensor_from_elsewhere_makes_no_plan() -> None:
    box = [torch.zeros(2)]
    counted, call = planned(lambda x: x + box[0])
    for value in (1.0, 2.0):
        box[0] = torch.full((2,), value)
        assert call(torch.zeros(2)).tolist() == [value, value]
    assert counted.runs == 2


def test_a_number_that_varies_is_not_looked_at() -> None:
    with pytest.raises(TypeError, match="handed on to a kernel"):
        planned(lambda x, n: x.new_empty(n + 1), varying=(1,))[1](torch.zeros(2), 3)
    kind_of = kind_function(2, (), (1,))
    assert kind_of(1, 2) == kind_of(1, 5) != kind_of(2, 5)


def test_plans_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "MOST_PLANS", 4)
    counted = Counted(lambda x: x + 1)
    plan = Planned(counted, 1, [0])
    for size in (*range(1, 9), 8, 7, 6, 5):
        assert plan(counted, torch.zeros(size)).shape == (size,)
    assert (len(plan._plans), counted.runs) == (4, 8)
    plan(counted, torch.zeros(1))
    assert counted.runs == 9


def test_threads_record_by_themselves() -> None:
    counted, call = planned(middle)
    wrong: list[int] = []

    def work(seed: int) -> None:
        made = torch.Generator().manual_seed(seed)
        for rows in range(2, 30):
            x, y = torch.randn(2, rows, 8, generator=made)
            if not agree(middle(x, y, 0.5), call(x, y, 0.5)) or is_recording():
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert counted.runs < 8 * 28


def test_an_error_leaves_nothing_behind() -> None:
    _, call = planned(lambda x: (_ for _ in ()).throw(ValueError("x: too short")) if len(x) < 3 else x + 1)
    for _ in range(2):
        with pytest.raises(ValueError, match="too short"):
            call(torch.zeros(2))
        assert not is_recording()
        assert torch._C._len_torch_dispatch_stack() == 0
    assert call(torch.zeros(3)).tolist() == [1, 1, 1]


def test_nested_plans_are_one() -> None:
    inner, call_inner = planned(lambda x: x * 2)
    outer, call = planned(lambda x: inner(x) + 1 if is_recording() else call_inner(x) + 1)
    for x in torch.randn(3, 4):
        assert torch.equal(call(x), x * 2 + 1)
    assert outer.runs == inner.runs == 1


class Subclass(torch.Tensor):
    """Not memory alone."""


def others() -> Iterator[torch.Tensor]:
    yield torch.zeros(2).as_subclass(Subclass)
    yield torch.zeros(2, device="meta")
    with torch._subclasses.FakeTensorMode():
        yield torch.zeros(2)


def test_tensors_that_are_more_than_memory_are_left_to_others() -> None:
    plan = Planned(lambda x: x + 1, 1, [0])
    plan(plan.function, torch.zeros(2))
    for x in others():
        assert plan(lambda x: "others", x) == "others"


def test_inference_mode_and_autocast_are_those_of_the_call() -> None:
    _, call = planned(lambda x: x @ x)
    x = torch.randn(4, 4)
    call(x)
    with torch.inference_mode():
        assert call(x).is_inference()
    assert not call(x).is_inference()
    with torch.autocast("cpu", torch.bfloat16):
        assert call(x).dtype == torch.float32
