"""Counts how often code waits for the device to read values of a tensor, on a machine without one too."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

_READS = ("tolist", "cpu", "item", "numpy", "nonzero", "__bool__", "__int__", "__float__", "__index__")


class _OnHost(torch.Tensor):
    """What has been brought to the host: reading it, or what is made of it, waits for nothing."""


@contextmanager
def counted_reads(*folders: str) -> Iterator[list[str]]:
    """Within it, a list grows by the name of each method that reads a tensor, called from a file below ``folders``."""
    reads: list[str] = []

    def counting(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def read(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            if isinstance(self, _OnHost):
                return method(self, *args, **kwargs)
            file = Path(sys._getframe(1).f_code.co_filename).as_posix()
            counts = any(f"/{folder}/" in file for folder in folders)
            if counts:
                reads.append(name)
            result = method(self, *args, **kwargs)
            return result.as_subclass(_OnHost) if counts and name == "cpu" else result

        return read

    with ExitStack() as patches:
        for name in _READS:
            patches.enter_context(patch.object(torch.Tensor, name, counting(name, getattr(torch.Tensor, name))))
        yield reads
