"""How long the first call of every op takes, forward and backward, in a new process with an empty compiler cache.

python benchmarks/first_call.py [--part fla.ops] [--only chunk_gla,...] [--jobs 4]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import torch

from fla.utils.spec import SequenceOp, specs

SIZES = {"B": 2, "T": 512, "H": 4, "HV": 4, "K": 128, "V": 128, "M": 64}


def ops(part: str) -> dict[str, SequenceOp]:
    return {op.name: op for spec in specs(part) for op in spec.sequence_ops}


def measure(part: str, name: str) -> None:
    """Print the seconds of the first forward call, and of the first backward pass after it."""
    op = ops(part)[name]
    inputs = op.make(SIZES, torch.Generator("cuda").manual_seed(0), torch.bfloat16)
    leaves = {n: x.requires_grad_() for n, x in inputs.items()}
    torch.cuda.synchronize()
    start = time.perf_counter()
    result = op.function(**leaves)
    o = result if isinstance(result, torch.Tensor) else result[0]
    torch.cuda.synchronize()
    middle = time.perf_counter()
    torch.autograd.grad(o.sum(), list(leaves.values()))
    torch.cuda.synchronize()
    print(f"{middle - start:8.2f} {time.perf_counter() - middle:8.2f}")


def alone(part: str, name: str) -> str:
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, __file__, "--part", part, "--measure", name]
        environment = {**os.environ, "TRITON_CACHE_DIR": cache}
        return subprocess.run(command, env=environment, capture_output=True, text=True).stdout.strip() or "failed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default="fla.ops")
    parser.add_argument("--only")
    parser.add_argument("--jobs", type=int, default=1, help="ops that are measured at the same time")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.part, options.measure)
        return
    names = options.only.split(",") if options.only else list(ops(options.part))
    print(f"{'op':36} forward backward, s")
    with ThreadPoolExecutor(options.jobs) as pool:
        for name, row in zip(names, pool.map(lambda name: alone(options.part, name), names)):
            print(f"{name:36}{row}", flush=True)


if __name__ == "__main__":
    main()
