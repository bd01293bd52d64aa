"""Hold every case of every spec against the error budget on this machine, and print the worst error of each.

    python benchmarks/conformance.py [--parts fla.ops,fla.modules] [--only gla,layernorm] [--backend triton]

Run it on a GPU: the test suite covers the torch backend and, in Triton's interpreter, the tiny cases.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator

import torch

from fla.utils._spec import Case, Spec, specs
from fla.utils.testing.conformance import Measured, check_case

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def selected(parts: str, only: str | None) -> Iterator[Spec]:
    for part in parts.split(","):
        for spec in specs(part):
            if only is None or spec.name in only.split(","):
                yield spec


def run(spec: Spec, case: Case, backend: str, device: str, dtype: torch.dtype) -> tuple[list[Measured], str]:
    """What was measured, and what went wrong."""
    try:
        return check_case(case, backend, device, dtype, spec.truth), ""
    except (AssertionError, RuntimeError) as failure:
        return [], f"{type(failure).__name__}: {failure}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="fla.ops,fla.modules")
    parser.add_argument("--only")
    parser.add_argument("--backend", default="triton")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    # A tensor that a kernel forgot to write must not pass by luck.
    torch.utils.deterministic.fill_uninitialized_memory = True
    failures = 0
    print(f"{'spec':28}{'dtype':10}{'cases':>6}{'worst error':>13}{'its budget':>12}{'seconds':>9}")
    for spec in selected(options.parts, options.only):
        if options.backend not in spec.backends:
            continue
        for dtype in DTYPES:
            start, worst, wrong = time.time(), Measured("", 0.0, 1.0), []
            for case in spec.cases:
                measured, message = run(spec, case, options.backend, options.device, dtype)
                wrong += [message] if message else []
                worst = max([worst, *measured], key=lambda m: m.error / m.budget)
            failures += len(wrong)
            row = f"{spec.name:28}{str(dtype)[6:]:10}{len(spec.cases):6}{worst.error:13.2e}{worst.budget:12.2e}"
            print(f"{row}{time.time() - start:9.1f}", *wrong, sep="\n    ", flush=True)
    print(f"{failures} failed")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
