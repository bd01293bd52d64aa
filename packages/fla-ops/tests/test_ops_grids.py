"""How many programs a launch has, and on which axes of its grid they stand."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

from fla.utils.tiles import MOST_PROGRAMS, launch_grid


def test_every_kernel_can_be_launched_over_65536_sequences() -> None:
    # A process of its own: it takes another driver.
    command = [sys.executable, "-m", "fla.utils.testing.grids", "fla.ops"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TRITON_INTERPRET": "0"})
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_grid_has_all_combinations_on_its_first_axis_and_heads_on_the_second() -> None:
    assert launch_grid(2, 65_536) == (131_072, 1)
    assert launch_grid(3, 0) == (0, 1)
    assert launch_grid(2, 5, heads=7) == (10, 7)
    assert launch_grid(MOST_PROGRAMS) == (MOST_PROGRAMS, 1)


@pytest.mark.parametrize(("counts", "heads"), [((2, 2**30), 1), ((2**30,), 2), ((1,), 65_536)])
def test_more_programs_than_a_launch_can_have_are_refused(counts: tuple[int, ...], heads: int) -> None:
    with pytest.raises(ValueError, match="launch grid: expected at most 2147483647 programs and 65535 heads, got"):
        launch_grid(*counts, heads=heads)
