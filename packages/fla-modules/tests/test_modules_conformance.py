"""Every module with a spec against the float64 truth, on the torch backend: one test over all specs.

Modules have one twin in PyTorch, so this holds its rounding to absolute bounds; what it computes is each module's own
test's to say.
"""

from __future__ import annotations

import pytest
import torch

from fla.utils.spec import Case, Spec, specs
from fla.utils.testing.conformance import check_case

CASES = [(spec, case) for spec in specs("fla.modules") for case in spec.cases if "large" not in case.tags]
IDS = [case.name for _, case in CASES]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("spec", "case"), CASES, ids=IDS)
def test_torch_backend_rounds_once(spec: Spec, case: Case, dtype: torch.dtype) -> None:
    # A few roundings of the inputs' dtype: a sum taken in half precision would be far above this.
    allowed = 4 * torch.finfo(dtype).eps if dtype != torch.float32 else 1e-5
    for row in check_case(case, "torch", "cpu", dtype, spec.truth):
        assert row.error <= allowed, f"{row.what}: {row.error:.2e} > {allowed:.2e}"
