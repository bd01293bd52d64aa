"""The examples in the docstrings of public ops do what they say."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Callable, Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import fla.ops


def _public_functions() -> Iterator[Callable[..., Any]]:
    for family in iter_modules(fla.ops.__path__, "fla.ops."):
        if family.ispkg and "._" not in family.name:
            module = import_module(family.name)
            yield from (getattr(module, name) for name in module.__all__)


#: Each once, whatever other names it has. Gates and references are described by their formulas.
FORMS = ("chunk_", "fused_recurrent_", "fused_mul_", "parallel_", "mamba_", "selective_", "normalised_", "running_")
FUNCTIONS = sorted(
    {
        f.__name__: f
        for f in _public_functions()
        if inspect.isfunction(f) and f.__name__.startswith(FORMS) and not f.__name__.endswith("_reference")
    }.items()
)


@pytest.mark.parametrize("function", [function for _, function in FUNCTIONS], ids=[name for name, _ in FUNCTIONS])
def test_an_example_is_there_and_right(function: Callable[..., Any]) -> None:
    known = {"torch": torch, "F": F, function.__name__: function}
    (test,) = doctest.DocTestFinder(recurse=False).find(function, function.__name__, globs=known)
    assert test.examples
    report: list[str] = []
    assert doctest.DocTestRunner().run(test, out=report.append).failed == 0, "".join(report)
