"""Hold every case of every spec against the error budget on this machine, and print the worst error of each family.

A family that came nearer to its budget than ``fla.utils.numerics.MARGIN`` allows is marked "within a hair".

    python benchmarks/conformance.py [--parts fla.ops,fla.modules] [--only gla,layernorm] [--dtypes bfloat16]
                                     [--backend triton] [--jobs 4] [--share 1/3] [--seconds 500]

Run it on a GPU: the test suite covers the torch backend and, in Triton's interpreter, the tiny cases. Truth is the
torch backend in float64 where there is one, because the test suite holds that to the reference and the reference, step
by step, takes minutes here; ``--truth reference`` takes the reference all the same.

Cases run in processes of their own, a few at a time: one that loses the device (an illegal access ends a process's use
of it) is reported, and the cases after it run in a new process.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import NamedTuple

import torch

from fla.utils.numerics import MARGIN
from fla.utils.spec import Spec, specs
from fla.utils.testing.conformance import Measured, check_case

DTYPES = "bfloat16,float32,float16"
CASES_OF_A_PROCESS = 7
#: Stands for a line's end within a message, in what processes tell each other.
NEWLINE = "\x1e"


class Job(NamedTuple):
    """Some cases of one family in one dtype."""

    part: str
    name: str
    dtype: str
    first: int
    last: int


class Found(NamedTuple):
    """The worst that a job measured, by its share of the budget, what went wrong, and what did not run."""

    job: Job
    worst: Measured
    wrong: list[str]
    left: int


def find(part: str, name: str) -> Spec:
    return next(spec for spec in specs(part) if spec.name == name)


def run_cases(job: Job, backend: str, device: str, truth: str | None) -> None:
    """In a process of its own: a line for each case, "case number, error, budget, tensor" or what went wrong."""
    # A tensor that a kernel forgot to write must not pass by luck.
    torch.utils.deterministic.fill_uninitialized_memory = True
    spec = find(job.part, job.name)
    truth = truth or ("torch" if "torch" in spec.backends and backend != "torch" else spec.truth)
    for number in range(job.first, job.last):
        try:
            measured = check_case(spec.cases[number], backend, device, getattr(torch, job.dtype), truth)
            worst = max(measured, key=lambda m: m.error / m.budget)
            print(
                "\t".join(
                    (str(number), "ok", str(worst.error), str(worst.budget), f"{spec.cases[number].name}: {worst.what}")
                ),
                flush=True,
            )
        except (AssertionError, RuntimeError) as failure:
            text = f"{spec.cases[number].name}: {type(failure).__name__}: {failure}"
            print("\t".join((str(number), "wrong", text.replace("\n", NEWLINE))), flush=True)
            if device == "cuda":
                torch.cuda.synchronize()  # raises, and so ends the process, where the device is lost


def run(job: Job, arguments: list[str], end: float) -> Found:
    worst, wrong, first = Measured("", 0.0, 1.0), [], job.first
    while first < job.last and time.time() < end:
        rest = ":".join(map(str, job._replace(first=first)))
        try:
            done = subprocess.run(
                [sys.executable, __file__, *arguments, "--job", rest],
                capture_output=True,
                text=True,
                timeout=max(1.0, end - time.time()),
            )
            output, ended = done.stdout, done.stderr.strip().splitlines()[-1:]
        except subprocess.TimeoutExpired as expired:
            output, ended = (expired.stdout or b"").decode(), ["stopped at the time limit"]
        lines = [line.split("\t") for line in output.split("\n") if line[:1].isdigit()]
        for _, state, *rest_of_line in lines:
            if state == "wrong":
                wrong.append(rest_of_line[0].replace(NEWLINE, "\n    "))
            else:
                error, budget, what = rest_of_line
                worst = max(worst, Measured(what, float(error), float(budget)), key=lambda m: m.error / m.budget)
        if not lines and time.time() < end:
            wrong.append(f"case {first}: the process ended: {' '.join(ended)}")
            first += 1
        else:
            first += len(lines)
    return Found(job, worst, wrong, job.last - first)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="fla.ops,fla.modules")
    parser.add_argument("--only")
    parser.add_argument("--dtypes", default=DTYPES)
    parser.add_argument("--backend", default="triton")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--truth", help="the backend that is right, in float64")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the device")
    parser.add_argument("--share", default="1/1", help="every third set of cases, from the first: 1/3")
    parser.add_argument("--seconds", type=float, default=3600.0, help="how long the whole run may take")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        part, name, dtype, first, last = options.job.split(":")
        run_cases(Job(part, name, dtype, int(first), int(last)), options.backend, options.device, options.truth)
        return
    only = options.only and options.only.split(",")
    jobs = [
        Job(part, spec.name, dtype, first, min(first + CASES_OF_A_PROCESS, len(spec.cases)))
        for dtype in options.dtypes.split(",")
        for part in options.parts.split(",")
        for spec in specs(part)
        for first in range(0, len(spec.cases), CASES_OF_A_PROCESS)
        if options.backend in spec.backends and (only is None or spec.name in only)
    ]
    share, shares = map(int, options.share.split("/"))
    jobs = jobs[share - 1 :: shares]
    end = time.time() + options.seconds
    found: dict[tuple[str, str], list[Found]] = {}
    with ThreadPoolExecutor(options.jobs) as pool:
        pending = [pool.submit(run, job, sys.argv[1:], end) for job in jobs]
        for future in as_completed(pending):
            result = future.result()
            found.setdefault((result.job.name, result.job.dtype), []).append(result)
            for text in result.wrong:
                print(f"{result.job.name}, {result.job.dtype}: {text}", flush=True)
    print(
        f"{'spec':28}{'dtype':10}{'cases':>6}{'wrong':>6}{'not run':>8}"
        f"{'worst error':>13}{'its budget':>12}{'share':>7}  case: tensor"
    )
    failures = left = near = 0
    for (name, dtype), results in found.items():
        worst = max((r.worst for r in results), key=lambda m: m.error / m.budget)
        cases = sum(r.job.last - r.job.first for r in results)
        wrong, unrun = sum(len(r.wrong) for r in results), sum(r.left for r in results)
        share = worst.error / worst.budget
        remark = "  within a hair" if share > MARGIN else ""
        print(
            f"{name:28}{dtype:10}{cases:6}{wrong:6}{unrun:8}{worst.error:13.2e}{worst.budget:12.2e}{share:7.2f}"
            f"  {worst.what}{remark}"
        )
        near += share > MARGIN
        failures += wrong
        left += unrun
    print(f"{failures} failed, {near} within a hair" + (f", {left} not run" if left else ""))
    sys.exit(1 if failures or left else 0)


if __name__ == "__main__":
    main()
