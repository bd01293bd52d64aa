"""What a selective scan is made of, with channels last."""

from __future__ import annotations

from typing import NamedTuple

import torch

from fla.ops._arguments import sum_dtype
from fla.ops.mamba.tiles import SPANS
from fla.utils._validation import count_sequences
from fla.utils._varlen import max_chunks


class Operands(NamedTuple):
    """The tensors of a call: those over time ``[B, T, D]``, B and C ``[B, T, G, N]``."""

    u: torch.Tensor
    delta: torch.Tensor
    A: torch.Tensor
    """``[D, N]``."""
    B: torch.Tensor
    C: torch.Tensor
    skip: torch.Tensor | None
    """The factor called D ``[D]``."""
    z: torch.Tensor | None
    bias: torch.Tensor | None
    """Of delta ``[D]``."""

    @property
    def groups(self) -> int:
        """Of channels that share B and C."""
        return self.B.shape[2]

    @property
    def states(self) -> int:
        """Of each channel."""
        return self.A.shape[1]

    def contiguous(self) -> Operands:
        """The same, contiguous."""
        u, delta, A, B, C = (x.contiguous() for x in self[:5])
        return Operands(u, delta, A, B, C, *(None if x is None else x.contiguous() for x in self[5:]))


def new_states(operands: Operands, cu_seqlens: torch.Tensor | None, backend: str) -> torch.Tensor:
    """Room for the state before each span ``[spans, G, N, D / G]``, as many as the shapes allow."""
    batch, total, channels = operands.u.shape
    spans = max_chunks(batch * total, count_sequences(cu_seqlens, batch), SPANS[backend])
    shape = (spans, operands.groups, operands.states, channels // operands.groups)
    return operands.u.new_empty(shape, dtype=sum_dtype(operands.u))
