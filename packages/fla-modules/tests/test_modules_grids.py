"""On which axes of a launch grid programs stand."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

from fla.utils.testing.grids import kernels


def test_every_kernel_can_be_launched_over_65536_sequences() -> None:
    # A process of its own: it takes another driver.
    command = [sys.executable, "-m", "fla.utils.testing.grids", "fla.modules"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TRITON_INTERPRET": "0"})
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_kernels_name_says_which_it_is() -> None:
    # A profile shows no more than the name.
    modules = sorted(kernels("fla.ops") | kernels("fla.modules") | kernels("fla.utils"))
    names = [module.rpartition(".")[2] for module in modules]
    assert len(set(names)) == len(names) > 50, sorted(name for name in names if names.count(name) > 1)
