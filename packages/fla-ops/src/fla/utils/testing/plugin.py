"""The pytest plugin: ``-p fla.utils.testing.plugin``.

- Memory that nobody has written to yet is NaN (the largest number for integers), so that an op which leaves a part of
  its result unwritten fails. ``@pytest.mark.unpoisoned`` lets a test be.
- Random numbers are seeded by the test's node id; under Hypothesis by each example.
- The fixture ``device`` is what the tests run on: ``FLA_TEST_DEVICE``, else a GPU where there is one. Tensors, layers
  and models that a test makes lie there unless it says otherwise; what is drawn from a CPU generator is drawn on the
  CPU and moved, so that it is the same on every device. ``@pytest.mark.own_device`` leaves all that to the test.
- Each xdist worker has one GPU.
- ``--share 2/3`` runs the second third of the tests; ``--large`` those that take most of a GPU's memory, alone.
- ``--margins`` shows how near to their limits the errors came, and fails what passed by a hair.
- Triton's interpreter, where that runs the kernels, knows bfloat16.

It is no entry point: that would load it into the test run of everybody who has the wheel installed.
"""

from __future__ import annotations

import os
import random
import sys
import zlib
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._device import _device_constructors

from fla.utils.backends import INTERPRETED
from fla.utils.testing.margins import Margins

_UNPOISONED = "unpoisoned: torch.empty and its kin are left as they are"
_LARGE = "large: takes most of a GPU's memory, so it runs by itself, where asked for (--large)"
_OWN_DEVICE = "own_device: tensors lie on the CPU unless the test says otherwise"
_FUNCTIONS = ("empty", "empty_like", "empty_strided", "empty_permuted")
_METHODS = ("new_empty", "new_empty_strided")
_RANDOM = ("rand", "randn", "randint", "randperm", "normal")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that the top of this file names."""
    group = parser.getgroup("fla")
    group.addoption("--large", action="store_true", help="only the tests that take most of a GPU's memory")
    group.addoption("--share", default="1/1", metavar="I/N", help="the I-th of N shares of the tests")
    group.addoption("--margins", action="store_true", help="print how near to their limits the errors came")
    group.addoption("--margins-file", type=Path, metavar="FILE", help="write that as JSON, too")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, pick the worker's GPU before anything has started CUDA, and prepare the interpreter."""
    config.addinivalue_line("markers", _UNPOISONED)
    config.addinivalue_line("markers", _OWN_DEVICE)
    config.addinivalue_line("markers", _LARGE)
    # Once only PyTorch looks up which functions a default device applies to: it must be the real ones.
    _device_constructors()
    worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    if worker.isdecimal() and (devices := visible_gpus()):
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[int(worker) % len(devices)]
    if config.getoption("margins"):
        config.pluginmanager.register(Margins(config.getoption("margins_file")))
    if INTERPRETED:
        from fla.utils.testing.interpreter import teach_bfloat16

        teach_bfloat16()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the large tests, or all others, and those of other shares: each N-th test is of one share."""
    items[:] = [item for item in items if (item.get_closest_marker("large") is None) != config.getoption("--large")]
    share, shares = (int(number) for number in config.getoption("--share").split("/"))
    items[:] = items[share - 1 :: shares]


def pytest_collection_finish() -> None:
    """Tell Hypothesis of PyTorch's generator, if any test uses it, so that an example can be replayed."""
    if "hypothesis" in sys.modules:
        sys.modules["hypothesis"].register_random(_TORCH_RANDOM)


def visible_gpus() -> list[str]:
    """What stands, or could stand, in ``CUDA_VISIBLE_DEVICES``."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return [device for device in listed.split(",") if device]
    return [str(index) for index in range(torch.cuda.device_count())]


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The device under test."""
    return torch.device(os.environ.get("FLA_TEST_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu"))


@pytest.fixture(autouse=True)
def _seeded(request: pytest.FixtureRequest) -> None:
    seed = zlib.crc32(request.node.nodeid.encode())
    torch.manual_seed(seed)
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed)


@pytest.fixture(autouse=True)
def _poisoned(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the functions themselves: code inside op implementations looks them up when it is called.

    A ``TorchFunctionMode`` is off inside an op that the mode has seen, a ``TorchDispatchMode`` likewise and slows
    everything, and PyTorch's own ``fill_uninitialized_memory`` works only together with deterministic algorithms, which
    make other ops raise.
    """
    if request.node.get_closest_marker("unpoisoned"):
        return
    for name in _FUNCTIONS:
        monkeypatch.setattr(torch, name, poisoned(getattr(torch, name)))
    for name in _METHODS:
        monkeypatch.setattr(torch.Tensor, name, poisoned(getattr(torch.Tensor, name)))


@pytest.fixture(autouse=True)
def _on_the_device(
    request: pytest.FixtureRequest, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    if device.type == "cpu" or request.node.get_closest_marker("own_device"):
        yield
        return
    for name in _RANDOM:
        monkeypatch.setattr(torch, name, drawn_on_its_generator(getattr(torch, name), device))
    torch.set_default_device(device)
    yield
    torch.set_default_device(None)


def drawn_on_its_generator(draw: Callable[..., torch.Tensor], device: torch.device) -> Callable[..., torch.Tensor]:
    """``draw`` that draws on its generator's device, where it is told of one and of no device, and moves the result."""

    @wraps(draw)
    def draw_and_move(*args: Any, **kwargs: Any) -> torch.Tensor:
        generator = kwargs.get("generator")
        if generator is None or kwargs.get("device") is not None:
            return draw(*args, **kwargs)
        requires_grad = kwargs.pop("requires_grad", False)
        return draw(*args, **kwargs, device=generator.device).to(device).requires_grad_(requires_grad)

    return draw_and_move


def poisoned(allocate: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """``allocate`` with what it returns filled by what no computation can hide."""

    @wraps(allocate)
    def allocate_poisoned(*args: Any, **kwargs: Any) -> torch.Tensor:
        memory = allocate(*args, **kwargs)
        if memory.layout == torch.strided and not memory.is_quantized:
            with torch.no_grad():
                memory.fill_(_poison(memory.dtype))
        return memory

    return allocate_poisoned


def _poison(dtype: torch.dtype) -> float | bool:
    if dtype.is_floating_point or dtype.is_complex:
        return float("nan")
    return True if dtype == torch.bool else torch.iinfo(dtype).max


class _TorchRandom:
    """PyTorch's generator as Hypothesis wants one."""

    def seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def getstate(self) -> torch.Tensor:
        return torch.get_rng_state()

    def setstate(self, state: torch.Tensor) -> None:
        torch.set_rng_state(state)


_TORCH_RANDOM = _TorchRandom()
