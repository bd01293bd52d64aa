"""The Triton kernels of every module in Triton's interpreter, at tiny shapes: values, gradients, registration.

float16 is left to a GPU: it takes the paths of bfloat16, but for milder decays.
"""

from __future__ import annotations

import pytest
import torch

from fla.utils.spec import Case, Spec, specs
from fla.utils.testing.conformance import check_case

CASES = [(spec, case) for spec in specs("fla.modules") for case in spec.cases if "tiny" in case.tags]
IDS = [case.name for _, case in CASES]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("spec", "case"), CASES, ids=IDS)
def test_triton_backend_is_within_the_error_budget(spec: Spec, case: Case, dtype: torch.dtype) -> None:
    check_case(case, "triton", "cpu", dtype, spec.truth)
