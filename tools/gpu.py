"""Everything that there is to test on a GPU, and one table: run before a release on a machine with a GPU.

    python tools/gpu.py [--share 1/3] [--jobs 8] [--steps tests,large,conformance,times]

Runs as it is wherever the packages import, without a network: from a checkout the packages need not be installed.

- ``tests``: every test of every package; layers and models lie on the GPU.
- ``large``: those that take most of its memory, by themselves.
- ``conformance``: every case of every spec against the error budget, in each dtype.
- ``times``: GPU milliseconds of every op beside those that ``benchmarks/results/cuda.csv`` has for this GPU.

A share of 1/3 is every third test, case and op, and takes a third of the time.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
STEPS = ("tests", "large", "conformance", "times")
SUMMARY = re.compile(
    r"^=*\s*(\d+ (?:passed|failed|error|skipped).*?)\s*=*$|^(\d+ failed.*)$|^(\d+ timed.*)$", re.MULTILINE
)


class Result(NamedTuple):
    """What came of a step."""

    step: str
    code: int
    seconds: float
    summary: str


def environment() -> dict[str, str]:
    """Where the packages are found: the sources of this checkout, before what is installed."""
    sources = sorted(str(path) for path in ROOT.glob("packages/*/src"))
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*sources, *filter(None, [os.environ.get("PYTHONPATH")])]),
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
    }


def commands(share: str, jobs: int) -> dict[str, list[str]]:
    """What each step runs."""
    pytest = ["-m", "pytest", "packages", "-q", "--share", share, "-p", "no:cacheprovider", "--tb=short"]
    return {
        "tests": [*pytest, "-n", str(jobs), "--maxfail=60"],
        "large": [*pytest, "--large"],
        "conformance": ["benchmarks/conformance.py", "--jobs", str(jobs), "--share", share],
        "times": ["benchmarks/run.py", "--compare", "benchmarks/results/cuda.csv", "--share", share],
    }


def run(step: str, command: list[str]) -> Result:
    """One step, its output shown as it comes."""
    print(f"\n{step}: python {' '.join(command)}", flush=True)
    start, lines = time.monotonic(), []
    with subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    found = SUMMARY.findall("".join(lines[-40:]))
    return Result(step, process.returncode, time.monotonic() - start, found[-1] if found else "no summary")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", default="1/1", metavar="I/N")
    parser.add_argument("--jobs", type=int, default=min(10, os.cpu_count() or 1), help="processes that share the GPU")
    parser.add_argument("--steps", default=",".join(STEPS))
    options = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        print(f"no CUDA GPU: PyTorch {torch.__version__} finds none here, and nothing was run", file=sys.stderr)
        return 2
    known = commands(options.share, options.jobs)
    if unknown := set(options.steps.split(",")) - set(known):
        parser.error(f"--steps: expected some of {', '.join(STEPS)}, got {', '.join(sorted(unknown))}")
    results = [run(step, known[step]) for step in options.steps.split(",")]
    print(f"\n{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, share {options.share}")
    for result in results:
        state = "green" if result.code == 0 else "RED"
        print(f"{result.step:14}{state:7}{result.seconds:7.0f} s  {result.summary}")
    return max((result.code for result in results), default=0)


if __name__ == "__main__":
    sys.exit(main())
