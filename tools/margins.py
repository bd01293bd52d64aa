"""Run tests under several kinds of processor arithmetic and print how near to their limits the errors came.

    python tools/margins.py [--every] [--lines 40] [what goes to pytest, such as packages/fla-ops/tests -n 2 -k gla]

The environment chooses which instructions PyTorch's own loops, MKL and oneDNN use, and so the order in which sums are
taken: what passes by the luck of one processor fails under another. ``--every`` runs all pairs instead of a diagonal.
The exit status is 1 where a test failed, or passed above ``fla.utils.numerics.MARGIN`` of its limit.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from fla.utils.numerics import MARGIN

ROOT = Path(__file__).resolve().parents[1]
LOOPS = ("default", "avx2", "avx512")
#: MKL heeds the first variable on Intel's processors alone, the second on all.
LIBRARIES = {
    "sse": {"MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "SSE41"},
    "avx2": {"MKL_ENABLE_INSTRUCTIONS": "AVX2", "MKL_CBWR": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "avx512": {"MKL_ENABLE_INSTRUCTIONS": "AVX512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
}


def environment(loops: str, libraries: str) -> dict[str, str]:
    """The variables of one kind of arithmetic."""
    return {"ATEN_CPU_CAPABILITY": loops, "OMP_NUM_THREADS": "1", **LIBRARIES[libraries]}


def measure(setting: tuple[str, str], arguments: list[str], folder: Path) -> tuple[dict[str, tuple[str, float]], bool]:
    """The nearest comparison of each test under one setting, and whether all tests passed."""
    file = folder / "-".join(setting)
    command = [sys.executable, "-m", "pytest", "-q", "--margins", "--margins-file", str(file), *arguments]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment(*setting)})
    margins = json.loads(file.read_text()) if file.exists() else []
    return {test: (what, share) for test, what, share in margins}, done.returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", action="store_true", help="all pairs of loops and libraries")
    parser.add_argument("--lines", type=int, default=40, help="how many tests to print")
    options, arguments = parser.parse_known_args()
    settings = list(itertools.product(LOOPS, LIBRARIES) if options.every else zip(LOOPS, LIBRARIES))
    with tempfile.TemporaryDirectory() as folder:
        results = [measure(setting, arguments, Path(folder)) for setting in settings]
    worst: dict[str, tuple[float, str, str]] = {}
    for setting, (margins, _) in zip(settings, results):
        for test, (what, share) in margins.items():
            worst[test] = max(worst.get(test, (-1.0, "", "")), (share, what, "/".join(setting)))
    print(f"\n{'share':>8}  {'loops/libraries':16}  test, what")
    for test, (share, what, where) in sorted(worst.items(), key=lambda entry: -entry[1][0])[: options.lines]:
        print(f"{share:8.3f}  {where:16}  {test}  {what}")
    near = sum(share > MARGIN for share, _, _ in worst.values())
    print(f"{len(worst)} tests compared numbers under {len(settings)} settings, {near} above {MARGIN:.0%} of the limit")
    sys.exit(0 if all(passed for _, passed in results) else 1)


if __name__ == "__main__":
    main()
