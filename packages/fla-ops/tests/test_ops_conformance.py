"""Every op family against its float64 reference, on the torch backend: one test over all specs."""

from __future__ import annotations

import pytest
import torch

from fla.utils._spec import Case, Spec, specs
from fla.utils.testing.conformance import check_case

CASES = [(spec, case) for spec in specs("fla.ops") for case in spec.cases if "large" not in case.tags]
IDS = [case.name for _, case in CASES]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("spec", "case"), CASES, ids=IDS)
def test_torch_backend_is_within_the_error_budget(spec: Spec, case: Case, dtype: torch.dtype) -> None:
    check_case(case, "torch", "cpu", dtype, spec.truth)
