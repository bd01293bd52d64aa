"""The Triton kernels of every op family in Triton's interpreter, at tiny shapes.

The cases of a family take float32 and bfloat16 in turn, because the interpreter is slow; ``benchmarks/conformance.py``
runs every case in every dtype on a GPU. float16 takes the paths of bfloat16, but for milder decays.
"""

from __future__ import annotations

import pytest
import torch

from fla.utils._spec import Case, Spec, specs
from fla.utils.testing.conformance import check_case

DTYPES = (torch.float32, torch.bfloat16)
CASES = [
    pytest.param(spec, case, DTYPES[index % 2], id=f"{case.name} {DTYPES[index % 2]}")
    for spec in specs("fla.ops")
    for index, case in enumerate(case for case in spec.cases if "tiny" in case.tags)
]


@pytest.mark.parametrize(("spec", "case", "dtype"), CASES)
def test_triton_backend_is_within_the_error_budget(spec: Spec, case: Case, dtype: torch.dtype) -> None:
    check_case(case, "triton", "cpu", dtype, spec.truth)
