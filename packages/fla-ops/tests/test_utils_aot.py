"""Kernels compiled for a GPU that is not there: what is recorded, and what makes the program fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

from fla.utils.testing.aot import fault_of, spec_modules
from fla.utils.testing.dry_gpu import Launch, Resources

# A family as ``fla.ops`` could have it. A file of its own: a process compiles for one architecture alone.
FAMILY = """
import sys
import types
from functools import partial

import torch
import triton
import triton.language as tl

from fla.utils.backends import explain_backend
from fla.utils.testing import aot


@triton.jit
def copy_kernel(x, y, size, BLOCK: tl.constexpr, FLAG: tl.constexpr):
    offsets = tl.arange(0, BLOCK)
    tl.store(y + offsets, tl.load(x + offsets, mask=offsets < size), mask=offsets < size)


@triton.jit
def product_kernel(x, y, steps: tl.constexpr, M: tl.constexpr):
    rows, columns, inner = tl.arange(0, M)[:, None], tl.arange(0, M)[None, :], tl.arange(0, 64)
    total = tl.zeros([M, M], tl.float32)
    for i in range(steps):
        left = tl.load(x + i * M * 64 + rows * 64 + inner[None, :])
        total += tl.dot(left, tl.load(x + i * M * 64 + inner[:, None] * M + columns))
    tl.store(y + rows * M + columns, total)


@triton.jit
def overwriting_kernel(x, y, sums, steps: tl.constexpr, M: tl.constexpr):
    rows, columns = tl.arange(0, M)[:, None], tl.arange(0, M)[None, :]
    total, left_sums = tl.zeros([M, M], tl.float32), tl.zeros([M], tl.float32)
    for i in range(steps):
        left = tl.load(x + i * M * M + rows * M + columns)
        left_sums += tl.sum(left.to(tl.float32), 1)
        total += tl.dot(left, tl.load(y + i * M * M + rows * M + columns))
    tl.store(x + rows * M + columns, total)
    tl.store(sums + tl.arange(0, M), left_sums)


@triton.jit
def offset_kernel(x, rows, stride, BLOCK: tl.constexpr, WIDE: tl.constexpr):
    i_p = tl.program_id(0)
    i = i_p % tl.cdiv(rows, BLOCK)
    tl.store(x + (i_p - i_p // 8 * 8) * BLOCK, i_p * stride)
    if WIDE:
        i = i.to(tl.int64)
    tl.store(x + i * BLOCK, 0, mask=i_p * stride < rows)
    tl.store(x + i * stride, 0)


@triton.jit
def broken_kernel(x, D: tl.constexpr):
    tl.store(x + tl.arange(0, D), tl.arange(0, 2 * D))


def copy(size, block):
    x = torch.ones(size)
    y = torch.zeros(size)
    copy_kernel[(1,)](x, y, size, BLOCK=block, FLAG=None, num_warps=2, num_stages=2)
    assert y.sum() == 0, "it ran"
    assert explain_backend("cpu", torch.float32, "triton").backend == "triton"


def product(size, stages, warps):
    x = torch.zeros(4, size, 64, dtype=torch.float16)
    product_kernel[(1,)](x, torch.zeros(size, size), 4, M=size, num_warps=warps, num_stages=stages)


def overwriting(stages):
    x = torch.zeros(4, 64, 64, dtype=torch.float16)
    overwriting_kernel[(1,)](x, x.clone(), torch.zeros(64), 4, M=64, num_warps=4, num_stages=stages)


def offset(wide):
    offset_kernel[(1,)](torch.zeros(8, dtype=torch.int32), 100, 3, BLOCK=16, WIDE=wide)


def aot_cases():
    yield "copy", partial(copy, 100, 128)
    yield "copy again", partial(copy, 100, 128)
    yield "product with spills", partial(product, 128, 1, 1)
    yield "product over shared memory", partial(product, 128, 12, 4)
    yield "operands not pipelined", partial(overwriting, 1)
    yield "operands overwritten", partial(overwriting, 2)
    yield "offsets of 32 bits", partial(offset, False)
    yield "offsets of 64 bits", partial(offset, True)
    yield "no kernel", partial(broken_kernel[(1,)], torch.zeros(8), D=8)


family = types.ModuleType("fla.ops.made_up.spec")
family.aot_cases = aot_cases
aot.spec_modules = lambda: [family]
sys.exit(aot.main(sys.argv[1:]))
"""


def compile_family(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = folder / "family.py"
    program.write_text(FAMILY)
    environment = {**os.environ, "TRITON_CACHE_DIR": str(folder / "cache"), "TRITON_INTERPRET": "0"}
    command = [sys.executable, str(program), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    folder = tmp_path_factory.mktemp("aot")
    done = compile_family(folder, "--arch", "90", "--json", str(folder / "result.json"))
    return done, json.loads((folder / "result.json").read_text())


def test_a_kernel_is_recorded_once_with_its_constants(report: tuple[Any, dict[str, Any]]) -> None:
    copies = [kernel for kernel in report[1]["compiled"] if kernel["launch"]["kernel"] == "copy_kernel"]
    assert [kernel["case"] for kernel in copies] == ["copy"]
    launch = copies[0]["launch"]
    assert launch["constants"] == {"BLOCK": 128, "FLAG": None}
    assert (launch["num_warps"], launch["num_stages"], launch["shared_bytes"]) == (2, 2, 0)
    assert 8 <= launch["resources"]["registers"] <= 64
    assert launch["resources"]["stack_bytes"] == 0
    assert copies[0]["fault"] == ""


def test_what_fails(report: tuple[Any, dict[str, Any]]) -> None:
    done, result = report
    assert done.returncode == 1, done.stderr
    spilling, overwriting, overflowing = (kernel for kernel in result["compiled"] if kernel["fault"])
    assert spilling["case"] == "product with spills"
    assert overwriting["case"] == "operands overwritten"
    assert overwriting["fault"].startswith("overwriting_kernel overwrites %left")
    assert spilling["launch"]["resources"]["stack_bytes"] > 64
    assert overflowing["case"] == "offsets of 32 bits"
    assert overflowing["fault"].startswith("offset_kernel computes offsets in 32 bits that may overflow: ")
    # The product with BLOCK stays within the rows, and what is stored is no offset.
    (product,) = overflowing["launch"]["overflowing"]
    assert "arith.muli" in product
    assert "%stride" in product
    over, broken = result["failed"]
    assert over["case"] == "product over shared memory"
    assert "OutOfResources: out of resource: shared memory" in over["fault"]
    assert broken["case"] == "no kernel"
    assert broken["fault"].startswith("ValueError: Cannot make_shape_compatible")
    assert "def broken_kernel" in broken["details"]


def test_the_table(report: tuple[Any, dict[str, Any]]) -> None:
    lines = report[0].stdout.splitlines()
    assert "made_up on 90" in lines
    assert any(line.split()[:1] == ["copy_kernel"] and line.endswith("BLOCK=128 FLAG=None") for line in lines)
    assert "6 kernels for 90, 5 faults" in lines


@pytest.mark.parametrize(
    ("stack_bytes", "allowance", "fault"),
    [
        (64, {}, ""),
        (65, {}, "k uses 65 bytes of stack, 64 allowed"),
        (100, {"k": 100}, ""),
        (101, {"k": 100}, "k uses 101 bytes of stack, 100 allowed"),
        (100, {"other": 100}, "k uses 100 bytes of stack, 64 allowed"),
        (None, {}, ""),
    ],
)
def test_spills(stack_bytes: int | None, allowance: dict[str, int], fault: str) -> None:
    resources = None if stack_bytes is None else Resources(255, stack_bytes)
    assert fault_of(Launch("k", {}, 4, 2, 0, resources), allowance) == fault


def test_families_of_installed_parts() -> None:
    assert "fla.ops.gla.spec" in [module.__name__ for module in spec_modules()]
    assert list(spec_modules(["fla.nothing_of_that_name"])) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--arch", "91"), "--arch: expected one of 80, 86, 89, 90, 100, 120, gfx942, gfx950, got 91"),
        (("--arch", "90", "--family", "glaa"), "--family: expected one of made_up, got glaa"),
    ],
)
def test_bad_arguments(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    done = compile_family(tmp_path, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
