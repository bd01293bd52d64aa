"""Every op family against its float64 reference, on the torch backend: one test over all specs."""

from __future__ import annotations

import pytest
import torch

from fla.utils.spec import Case, Spec, specs
from fla.utils.testing.conformance import check_case

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
CASES = [
    pytest.param(spec, case, dtype, id=f"{case.name}-{dtype}")
    for spec in specs("fla.ops")
    for case in spec.cases
    # Where sums cancel, the truth in float64 is no better than a result in float64.
    for dtype in (DTYPES[1:] if "cancels" in case.tags else DTYPES)
    if "large" not in case.tags
]


@pytest.mark.parametrize(("spec", "case", "dtype"), CASES)
def test_torch_backend_is_within_the_error_budget(spec: Spec, case: Case, dtype: torch.dtype) -> None:
    check_case(case, "torch", "cpu", dtype, spec.truth)
