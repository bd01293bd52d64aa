"""The Triton kernels of every op family in Triton's interpreter, at tiny shapes.

The cases of a family take float32 and bfloat16 in turn, because the interpreter is slow; ``benchmarks/conformance.py``
runs every case in every dtype on a GPU. float16 takes the paths of bfloat16, but for milder decays.
"""

from __future__ import annotations

import pytest
import torch

from fla.ops._shared.cases import flatten
from fla.utils.spec import Case, SequenceOp, Spec, specs
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


@pytest.mark.parametrize("op", [s.sequence_ops[0] for s in specs("fla.ops") if s.sequence_ops], ids=lambda op: op.name)
def test_nan_stays_in_its_packed_sequence(op: SequenceOp) -> None:
    sizes = {"B": 1, "T": 28, "H": 1, "HV": 1, "K": 4, "V": 4, "M": 4}
    ends, others = torch.tensor([0, 9, 20, 28], dtype=torch.int32), [*range(9), *range(20, 28)]
    inputs = op.make(sizes, torch.Generator().manual_seed(0), torch.float32)
    wrong = {name: x.index_fill(1, torch.tensor([15]), float("nan")) for name, x in inputs.items()}

    def results(inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        """Outputs, states and gradients of the first and last sequence."""
        leaves = {name: x.clone().requires_grad_() for name, x in inputs.items()}
        o, state = op.function(**leaves, output_final_state=True, cu_seqlens=ends, backend="triton")
        found = [o, *flatten(state)]
        gradients = torch.autograd.grad(found, list(leaves.values()), [torch.ones_like(x) for x in found])
        return [*(x[:, others] for x in (o, *gradients)), *(x[[0, 2]] for x in found[1:])]

    assert all(torch.equal(a, b) for a, b in zip(results(inputs), results(wrong), strict=True))
