"""What a plan hands to a compiled kernel, without a GPU: run by the session of every version of Triton."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

#: A process of its own, because it takes another driver: it prints what every launch was given.
PROGRAM = """
import torch
from fla.utils.testing import dry_gpu

seen = []
dry_gpu._Utils.launch_nothing = lambda self, kernel, *arguments: seen.append(arguments)
dry_gpu.use(90)

from fla.utils.plans import Planned
from fla.utils.recording import hooks
from fla.utils.sum_launch import sum_parts

runs = []
def double_sum(parts, scale):
    runs.append(scale)
    first = sum_parts(parts, torch.float32)
    return sum_parts(first[1:].unflatten(0, (-1, 3)), torch.bfloat16)

plan = Planned(double_sum, 2, [0])
call = lambda x: plan(double_sum, x, 0.5)
first, second = torch.randn(2, 5, 7), torch.randn(2, 5, 7)
results = [call(first[0]), call(second[0]), call(first.flatten()[1:36].view(5, 7))]
assert len(runs) == 2, "an argument at another alignment is of another kind"
for result in results:
    assert result.shape == (3,) and result.dtype == torch.bfloat16 and result.is_contiguous()
grids = [arguments[:3] for arguments in seen]
assert grids == [(1, 1, 1)] * 6, grids

# x, y, z, stream, function, metadata, and what the launch and its two hooks are told; then the kernel's arguments.
recorded, repeated = seen[:2], seen[2:4]
address = lambda x: x if isinstance(x, int) else x.data_ptr()
assert address(recorded[0][9]) == first.data_ptr() and repeated[0][9] == second[0].data_ptr()
assert repeated[1][9] == repeated[0][10] + 4, "a view is its memory and where it begins"
assert repeated[1][10] == results[1].data_ptr()
for old, new in zip(recorded, repeated):
    assert old[11:] == new[11:], (old, new)
    assert new[6:9] == (None, None, None)

told = []
runtime = getattr(__import__("triton").knobs, "runtime", None) if hasattr(__import__("triton"), "knobs") else None
owner = __import__("triton.compiler", fromlist=["CompiledKernel"]).CompiledKernel if runtime is None else runtime
if hasattr(owner.launch_enter_hook, "add"):
    owner.launch_enter_hook.add(told.append)
else:
    owner.launch_enter_hook = told.append
assert hooks()()
call(second[0])
assert len(runs) == 3, "who wants to be told of launches is told: plans stand aside"
print("fine")
"""


def test_a_plan_launches_what_was_launched_at_first_on_other_memory() -> None:
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TRITON_INTERPRET": "0"})
    assert done.stdout.endswith("fine\n"), done.stdout + done.stderr
