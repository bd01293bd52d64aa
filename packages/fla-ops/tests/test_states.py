"""States of all ops: contiguous, with memory of their own, whatever the backend and the layout of the call."""

from __future__ import annotations

import pytest
import torch

from fla.utils.spec import SequenceOp, specs
from fla.utils.testing.states import check_call, state_calls

OPS = [op for spec in specs("fla.ops") for op in spec.sequence_ops]


@pytest.mark.parametrize("backend", [None, "torch", "reference"])
@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_a_state_is_contiguous_and_owns_its_memory(
    op: SequenceOp, gradients: bool, backend: str | None, device: torch.device
) -> None:
    failed = []
    with torch.set_grad_enabled(gradients):
        for title, call in state_calls(op, device, backend=backend):
            call = call._replace(inputs={name: x.requires_grad_(gradients) for name, x in call.inputs.items()})
            try:
                check_call(op.function, call)
            except AssertionError as failure:
                failed.append(f"{title}: {failure}")
    assert not failed, "\n".join(failed)
