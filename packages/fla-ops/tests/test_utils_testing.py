"""What tests are made of: the pytest plugin, inputs and strategies."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import given, settings, strategies as st

from fla.utils.testing import plugin
from fla.utils.testing.inputs import (
    LAYOUTS,
    cu_seqlens,
    log_decay,
    non_contiguous,
    packed_lengths,
    randn,
    unit_vectors,
)
from fla.utils.testing.ranks import run_ranks
from fla.utils.testing.strategies import OpShape, op_shapes, packed_lengths as drawn_lengths, splits

pytest_plugins = ["pytester"]

PLUGIN = ("-p", "fla.utils.testing.plugin", "-p", "no:cacheprovider", "-p", "no:xdist")


def run_tests(pytester: pytest.Pytester, *source: str) -> pytest.RunResult:
    pytester.makepyfile("\n".join(("import os, random, pytest, torch", *source)))
    return pytester.runpytest_inprocess(*PLUGIN)


def test_memory_that_was_not_written_is_poison(pytester: pytest.Pytester) -> None:
    result = run_tests(
        pytester,
        "x = torch.zeros(2, 3)",
        "MADE = {",
        "    'empty': lambda: torch.empty(2, 3),",
        "    'empty_like': lambda: torch.empty_like(x),",
        "    'empty_strided': lambda: torch.empty_strided((2, 3), (1, 2)),",
        "    'empty_permuted': lambda: torch.empty_permuted((2, 3), (1, 0)),",
        "    'new_empty': lambda: x.new_empty(2, 3),",
        "    'new_empty_strided': lambda: x.new_empty_strided((2, 3), (3, 1)),",
        "    'half': lambda: torch.empty(2, 3, dtype=torch.float16),",
        "    'leaf': lambda: torch.empty(2, 3, requires_grad=True),",
        "}",
        "@pytest.mark.parametrize('name', MADE)",
        "def test_floating(name):",
        "    made = MADE[name]()",
        "    assert made.shape == (2, 3) and made.isnan().all()",
        "    assert made.requires_grad is (name == 'leaf')",
        "def test_others():",
        "    assert (torch.empty(4, dtype=torch.int32) == 2**31 - 1).all()",
        "    assert torch.empty(4, dtype=torch.bool).all()",
        "    assert torch.empty(3, device='meta').shape == (3,)",
        "    assert torch.empty(3, layout=torch.sparse_coo).layout == torch.sparse_coo",
    )
    result.assert_outcomes(passed=9)


def test_poison_reaches_into_op_implementations(pytester: pytest.Pytester) -> None:
    result = run_tests(
        pytester,
        "library = torch.library.Library('plugin_test', 'DEF')",
        "library.define('forgetful(Tensor x) -> Tensor')",
        "library.impl('forgetful', lambda x: torch.empty_like(x), 'CompositeExplicitAutograd')",
        "def test_op():",
        "    assert torch.ops.plugin_test.forgetful(torch.zeros(3)).isnan().all()",
    )
    result.assert_outcomes(passed=1)


def test_a_test_can_ask_for_clean_memory(pytester: pytest.Pytester) -> None:
    result = run_tests(
        pytester,
        "clean = torch.empty",
        "@pytest.mark.unpoisoned",
        "def test_clean():",
        "    assert torch.empty is clean",
        "def test_poisoned():",
        "    assert torch.empty is not clean",
    )
    result.assert_outcomes(passed=2)


def test_each_test_has_a_seed_of_its_own_and_keeps_it(pytester: pytest.Pytester) -> None:
    source = (
        "drawn = []",
        "@pytest.mark.parametrize('turn', range(2))",
        "def test_draw(turn):",
        "    drawn.append([torch.rand(1).item(), random.random()])",
        "def test_compare():",
        "    assert not set(drawn[0]) & set(drawn[1])",
        "    raise SystemError(f'drawn {drawn}')",
    )
    drawn = []
    for _ in range(2):
        result = run_tests(pytester, *source)
        result.assert_outcomes(passed=2, failed=1)
        drawn.append(next(line for line in result.outlines if "drawn [[" in line))
    assert drawn[0] == drawn[1]


def test_examples_of_hypothesis_start_from_one_seed(pytester: pytest.Pytester) -> None:
    result = run_tests(
        pytester,
        "from hypothesis import given, strategies",
        "drawn = set()",
        "@given(strategies.integers())",
        "def test_examples(number):",
        "    drawn.add(torch.rand(1).item())",
        "    assert len(drawn) == 1",
    )
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("chosen", "expected"), [("meta", "meta"), ("", "cuda" if torch.cuda.is_available() else "cpu")]
)
def test_device(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, chosen: str, expected: str) -> None:
    monkeypatch.setenv("FLA_TEST_DEVICE", chosen)
    result = run_tests(pytester, "def test_it(device):", f"    assert device == torch.device('{expected}')")
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("worker", "visible", "devices", "expected"),
    [
        ("gw0", None, 4, "0"),
        ("gw5", None, 4, "1"),
        ("gw3", "4,6", 4, "6"),
        ("gw1", "GPU-a,GPU-b", 4, "GPU-b"),
        ("gw1", "", 4, ""),
        ("gw1", None, 0, None),
        (None, "4,6", 4, "4,6"),
    ],
)
def test_one_gpu_for_each_worker(
    pytestconfig: pytest.Config,
    monkeypatch: pytest.MonkeyPatch,
    worker: str | None,
    visible: str | None,
    devices: int,
    expected: str | None,
) -> None:
    for name, value in (("PYTEST_XDIST_WORKER", worker), ("CUDA_VISIBLE_DEVICES", visible)):
        monkeypatch.setenv(name, value or "")
        if value is None:
            monkeypatch.delenv(name)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    plugin.pytest_configure(pytestconfig)
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == expected


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_randn_is_the_same_in_every_dtype_and_a_leaf() -> None:
    exact = randn(2, 500, dtype=torch.float64, generator=generator(), requires_grad=True)
    assert exact.is_leaf
    assert exact.requires_grad
    assert abs(exact.mean().item()) < 0.1
    assert abs(exact.std().item() - 1) < 0.1
    assert torch.equal(randn(2, 500, dtype=torch.bfloat16, generator=generator()), exact.bfloat16())


def test_unit_vectors() -> None:
    vectors = unit_vectors(50, 7, dtype=torch.float64, generator=generator())
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(50, dtype=torch.float64))
    assert vectors.mean(0).norm() < 0.3


def test_log_decay() -> None:
    decay = log_decay(4000, generator=generator())
    assert decay.max() <= 0
    assert -4 < decay.quantile(0.01) < -1.5
    torch.testing.assert_close(log_decay(4000, strength=2.0, generator=generator()), 2 * decay)
    strong = log_decay(4000, least=-30.0, generator=generator())
    assert abs((strong == -30.0).float().mean().item() - 1 / 8) < 0.03
    assert torch.equal(strong[strong != -30.0], decay[strong != -30.0])


@pytest.mark.parametrize(("total", "count"), [(100, 5), (3, 8), (7, 1)])
def test_packed_lengths_make_up_the_total(total: int, count: int) -> None:
    lengths = packed_lengths(total, count, generator())
    assert len(lengths) == count
    assert sum(lengths) == total
    assert min(lengths) >= 0


def test_cu_seqlens() -> None:
    ends = cu_seqlens([3, 0, 4])
    assert ends.dtype == torch.int32
    assert ends.tolist() == [0, 3, 3, 7]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_non_contiguous(layout: str) -> None:
    x = randn(2, 5, 3, 4, requires_grad=True)
    scattered = non_contiguous(x, layout)
    assert torch.equal(scattered, x)
    assert not scattered.is_contiguous()
    assert scattered.is_leaf
    assert scattered.requires_grad


@settings(max_examples=50, deadline=None)
@given(op_shapes(max_time=150, max_dim=128, max_work=1 << 18))
def test_op_shapes_keep_their_limits(shape: OpShape) -> None:
    assert 1 <= shape.T <= 150
    assert min(shape.K, shape.V) >= 1
    assert max(shape.K, shape.V) <= 128
    assert shape.T == 1 or shape.B * shape.T * shape.H * shape.K * shape.V <= 1 << 18


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40).flatmap(lambda total: st.tuples(st.just(total), splits(total, 4))))
def test_splits_make_up_the_whole(drawn: tuple[int, list[int]]) -> None:
    total, pieces = drawn
    assert sum(pieces) == total
    assert 1 <= len(pieces) <= 4
    assert min(pieces) >= 1


@settings(max_examples=50, deadline=None)
@given(drawn_lengths(60, 5))
def test_drawn_lengths_hold_a_step(lengths: list[int]) -> None:
    assert 1 <= sum(lengths) <= 60
    assert len(lengths) <= 5


def test_ranks_know_each_other() -> None:
    program = "import os; print(os.environ['RANK'], 'of', os.environ['WORLD_SIZE'])"
    assert run_ranks(["-c", program], 3) == ["0 of 3\n", "1 of 3\n", "2 of 3\n"]


def test_a_rank_that_fails_or_hangs_says_where() -> None:
    with pytest.raises(AssertionError, match=r"exit codes \[0, 3\]"):
        run_ranks(["-c", "import os; raise SystemExit(3 * int(os.environ['RANK']))"])
    with pytest.raises(AssertionError, match=r'exit codes \[-6, 0\](.|\n)*File "<string>", line 2 in <module>'):
        run_ranks(["-c", "import os, time\nos.environ['RANK'] == '0' and time.sleep(60)"], seconds=3)
