"""Hold every case of every spec against the error budget on this machine, and print the worst error of each.

    python benchmarks/conformance.py [--parts fla.ops,fla.modules] [--only gla,layernorm] [--backend triton] [--jobs 4]

Run it on a GPU: the test suite covers the torch backend and, in Triton's interpreter, the tiny cases. Truth is the
torch backend in float64 where there is one, because the test suite holds that to the reference and the reference, step
by step, takes minutes here; ``--truth reference`` takes the reference all the same.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import NamedTuple

import torch

from fla.utils._spec import Spec, specs
from fla.utils.testing.conformance import Measured, check_case

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class Job(NamedTuple):
    """One family in one dtype."""

    part: str
    name: str
    dtype: torch.dtype


def find(part: str, name: str) -> Spec:
    return next(spec for spec in specs(part) if spec.name == name)


def run(job: Job, backend: str, device: str, truth: str | None) -> tuple[str, int]:
    """A row of the table and what went wrong below it, and how much that is."""
    # A tensor that a kernel forgot to write must not pass by luck.
    torch.utils.deterministic.fill_uninitialized_memory = True
    spec, start, worst, wrong = find(job.part, job.name), time.time(), Measured("", 0.0, 1.0), []
    truth = truth or ("torch" if "torch" in spec.backends and backend != "torch" else spec.truth)
    for case in spec.cases:
        try:
            measured = check_case(case, backend, device, job.dtype, truth)
        except (AssertionError, RuntimeError) as failure:
            wrong.append(f"{type(failure).__name__}: {failure}")
        else:
            worst = max([worst, *measured], key=lambda m: m.error / m.budget)
    row = f"{spec.name:28}{str(job.dtype)[6:]:10}{len(spec.cases):6}{worst.error:13.2e}{worst.budget:12.2e}"
    return "\n    ".join([f"{row}{time.time() - start:9.1f}", *wrong]), len(wrong)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="fla.ops,fla.modules")
    parser.add_argument("--only")
    parser.add_argument("--backend", default="triton")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--truth", help="the backend that is right, in float64")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the device")
    options = parser.parse_args()
    only = options.only and options.only.split(",")
    jobs = [
        Job(part, spec.name, dtype)
        for part in options.parts.split(",")
        for spec in specs(part)
        for dtype in DTYPES
        if options.backend in spec.backends and (only is None or spec.name in only)
    ]
    failures = 0
    print(f"{'spec':28}{'dtype':10}{'cases':>6}{'worst error':>13}{'its budget':>12}{'seconds':>9}")
    with ProcessPoolExecutor(options.jobs, get_context("spawn")) as pool:
        pending = [pool.submit(run, job, options.backend, options.device, options.truth) for job in jobs]
        for done in as_completed(pending):
            row, wrong = done.result()
            print(row, flush=True)
            failures += wrong
    print(f"{failures} failed")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
