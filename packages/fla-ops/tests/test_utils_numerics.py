"""How errors are held to their limits, and how near they came."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from fla.utils.numerics import (
    MARGIN,
    assert_close,
    check_error_budget,
    error_budget_for,
    float64_rounding,
    get_err_ratio,
    observers,
    rounding_band,
)

pytest_plugins = ["pytester"]
ARGUMENTS = ("-p", "fla.utils.testing.plugin", "-p", "no:cacheprovider", "--margins")
ONE = torch.ones(3, dtype=torch.float64)


def horner(x: torch.Tensor, degree: int) -> torch.Tensor:
    """1 + x (1 + x (...)), which cancels where x is near -1."""
    total = torch.ones_like(x)
    for _ in range(degree):
        total = 1 + x * total
    return total


@pytest.mark.parametrize("degree", [3, 31, 81])
def test_what_float32_errs_tells_what_float64_errs(degree: int) -> None:
    generator = torch.Generator().manual_seed(degree)
    x = -1 + torch.rand(100, generator=generator, dtype=torch.float64) / 64
    narrow = x.float()
    predicted = float64_rounding(get_err_ratio(horner(narrow.double(), degree), horner(narrow, degree)))
    exact = [sum(Fraction(value) ** power for power in range(degree + 1)) for value in x.tolist()]
    errors = [float(Fraction(got) - true) for got, true in zip(horner(x, degree).tolist(), exact)]
    error = math.hypot(*errors) / math.hypot(*map(float, exact))
    assert predicted / 2 < error < 2 * predicted


@pytest.mark.parametrize("nothing", [math.nan, math.inf, 0.5])
def test_what_is_no_rounding_in_float32_tells_nothing_of_float64(nothing: float) -> None:
    assert float64_rounding(nothing) == 0.0


def test_the_truths_own_rounding_counts_in_float64() -> None:
    band = rounding_band(torch.float64)
    assert error_budget_for(ONE, ONE, torch.float64) == pytest.approx(band)
    # Twice as far from the exact value as the truth, which may lie on its other side.
    assert error_budget_for(ONE, ONE, torch.float64, truth_error=5e-15) == pytest.approx(3 * 5e-15 + band)
    result = ONE + 1e-14
    with pytest.raises(AssertionError, match="over the budget"):
        check_error_budget("sum", ONE, ONE, result, torch.float64)
    check_error_budget("sum", ONE, ONE, result, torch.float64, truth_error=5e-15)


def test_observers_hear_the_share_of_the_limit_of_every_comparison() -> None:
    heard: list[tuple[str, float]] = []

    def observe(what: str, share: float) -> None:
        heard.append((what, share))

    observers.append(observe)
    try:
        assert_close("near", ONE, ONE * 1.01, 0.02)
        check_error_budget("budget", ONE, ONE * (1 + 2**-8), ONE * (1 + 2**-9), torch.bfloat16)
        with pytest.raises(AssertionError):
            assert_close("NaN", ONE, ONE * math.nan, 0.02)
    finally:
        observers.remove(observe)
    assert [what for what, _ in heard] == ["near", "budget", "NaN"]
    assert [share for _, share in heard] == pytest.approx([0.5, 2**-9 / (2 * 2**-8 + 2**-8), math.inf])


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["one process", "xdist"])
def test_margins_lists_the_nearest_and_fails_what_passed_by_a_hair(
    pytester: pytest.Pytester, tmp_path: Path, workers: tuple[str, ...]
) -> None:
    source = (
        "import pytest, torch",
        "from fla.utils.numerics import assert_close",
        "one = torch.ones(3, dtype=torch.float64)",
        "def test_far():",
        "    assert_close('far', one, 1.001 * one, 0.01)",
        "def test_by_a_hair():",
        "    assert_close('far', one, 1.001 * one, 0.01)",
        "    assert_close('near', one, 1.009 * one, 0.01)",
        "def test_elements():",
        "    torch.testing.assert_close({'x': one + 0.5}, {'x': one}, rtol=0.5, atol=0.5)",
        "def test_refused():",
        "    with pytest.raises(AssertionError):",
        "        assert_close('too far', one, 2 * one, 0.01)",
        "def test_nothing():",
        "    pass",
    )
    pytester.makepyfile("\n".join(source))
    file = tmp_path / "margins.json"
    result = pytester.runpytest_subprocess(*ARGUMENTS, *workers, "--margins-file", file)
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines(["*near: at 90% of its limit*", "*3 tests compared numbers*"])
    margins = [(test.partition("::")[2], what, share) for test, what, share in json.loads(file.read_text())]
    assert [(test, what) for test, what, _ in margins] == [
        ("test_by_a_hair", "near"),
        ("test_elements", "elements"),
        ("test_far", "far"),
    ]
    assert [share for *_, share in margins] == pytest.approx([0.9, 0.5, 0.1])
    assert margins[0][2] > MARGIN
