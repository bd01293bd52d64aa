"""How near to its limit each comparison came: ``pytest --margins``, loaded by the project's plugin.

Every comparison of :mod:`fla.utils.numerics` and of ``torch.testing.assert_close`` is measured. The share of the limit
that its error reached is kept for each test, the worst are printed, and a test that passed above
:data:`fla.utils.numerics.MARGIN` fails: there the luck of one processor's rounding decides.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch.testing._comparison import default_tolerances
from torch.utils._pytree import tree_leaves

from fla.utils import numerics

#: A test's entry among the properties that its report carries, from xdist's workers too.
PROPERTY = "margin"
_LINES = 25


class Margin(NamedTuple):
    """The comparison of a test that came nearest to its limit, and the share of the limit it reached."""

    test: str
    what: str
    share: float


def worst_by_test(reports: list[pytest.TestReport]) -> list[Margin]:
    """The margin of each test that compared something, nearest first."""
    calls = (report for report in reports if report.when == "call")
    found = ((report.nodeid, dict(report.user_properties).get(PROPERTY)) for report in calls)
    margins = [Margin(test, str(worst[0]), float(worst[1])) for test, worst in found if isinstance(worst, Sequence)]
    return sorted(margins, key=lambda margin: -margin.share)


class Margins:
    """The plugin behind ``--margins``."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.reports: list[pytest.TestReport] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """Keep the worst share; of a test that passes only what passed, because tests of refusals fail on purpose."""
        shares: list[tuple[str, float]] = []

        def observe(what: str, share: float) -> None:
            shares.append((what, share))

        observers = numerics.observers
        observers.append(observe)
        plain, torch.testing.assert_close = torch.testing.assert_close, observed(torch.testing.assert_close)
        passed = False
        try:
            yield
            passed = True
        finally:
            torch.testing.assert_close = plain
            observers.remove(observe)
            counted = [one for one in shares if one[1] <= 1.0 or not passed]
            if counted:
                worst = max(counted, key=lambda one: one[1])
                item.user_properties.append((PROPERTY, worst))
        if counted and worst[1] > numerics.MARGIN:
            raise AssertionError(
                f"{worst[0]}: at {worst[1]:.0%} of its limit, within a hair: at most {numerics.MARGIN:.0%} may be"
            )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.reports.append(report)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        margins = worst_by_test(self.reports)
        terminalreporter.section("share of the limit that errors reached")
        for margin in margins[:_LINES]:
            terminalreporter.write_line(f"{margin.share:8.3f}  {margin.test}  {margin.what}")
        terminalreporter.write_line(f"{len(margins)} tests compared numbers")
        if self.file is not None:
            self.file.write_text(json.dumps(margins))


def observed(plain: Callable[..., None]) -> Callable[..., None]:
    """``torch.testing.assert_close``, whose tensors are measured first: the largest share of an element's tolerance."""

    @wraps(plain)
    def assert_close(actual: Any, expected: Any, **options: Any) -> None:
        pairs = zip(tree_leaves(actual), tree_leaves(expected))
        for got, wanted in pairs:
            if isinstance(got, torch.Tensor) and isinstance(wanted, torch.Tensor) and got.shape == wanted.shape:
                numerics.held("elements", _share_of_elements(got, wanted, options))
        plain(actual, expected, **options)

    return assert_close


def _share_of_elements(got: torch.Tensor, wanted: torch.Tensor, options: dict[str, Any]) -> float:
    rtol, atol = options.get("rtol"), options.get("atol")
    if rtol is None or atol is None:
        rtol, atol = default_tolerances(got, wanted)
    expected = wanted.detach().double()
    error = (got.detach().double() - expected).abs()
    share = torch.where(error == 0, 0.0, error / (atol + rtol * expected.abs()))
    return float(share.max()) if share.numel() else 0.0
