"""On which axes of a launch grid programs stand."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="Triton is not installed")


def test_every_kernel_can_be_launched_over_65536_sequences() -> None:
    # A process of its own: it takes another driver.
    command = [sys.executable, "-m", "fla.utils.testing.grids", "fla.modules"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TRITON_INTERPRET": "0"})
    assert done.returncode == 0, done.stdout + done.stderr
