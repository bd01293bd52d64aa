"""States of the Triton kernels of all ops, in Triton's interpreter: contiguous, with memory of their own."""

from __future__ import annotations

import pytest
import torch

from fla.utils.spec import SequenceOp, specs
from fla.utils.testing.states import check_call, state_calls

OPS = [op for spec in specs("fla.ops") for op in spec.sequence_ops]


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
@torch.no_grad()
def test_a_state_is_contiguous_and_owns_its_memory(op: SequenceOp, device: torch.device) -> None:
    failed = []
    for title, call in state_calls(op, device, ("packed",), backend="triton"):
        try:
            check_call(op.function, call)
        except AssertionError as failure:
            failed.append(f"{title}: {failure}")
    assert not failed, "\n".join(failed)
