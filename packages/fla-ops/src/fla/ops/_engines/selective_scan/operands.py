"""What a selective scan is made of, with channels last."""

from __future__ import annotations

from typing import NamedTuple

import torch

from fla.ops._engines.selective_scan.tiles import SPANS, whole_words
from fla.ops._shared.arguments import sum_dtype
from fla.utils.validation import count_sequences
from fla.utils.varlen import max_chunks


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

    def laid_out(self) -> Operands:
        """The same, contiguous."""
        u, delta, A, B, C = (x.contiguous() for x in self[:5])
        return Operands(u, delta, A, B, C, *(None if x is None else x.contiguous() for x in self[5:]))

    def in_words(self) -> tuple[Operands, str | None]:
        """With two elements of B and C in a word each, and their dtype; the same and None where that cannot be."""
        dtype = self.B.dtype
        aligned = all(x.dtype == dtype and x.storage_offset() % 2 == 0 for x in (self.B, self.C))
        if not (aligned and whole_words(self.states, dtype.itemsize)):
            return self, None
        return self._replace(B=self.B.view(torch.int32), C=self.C.view(torch.int32)), str(dtype).removeprefix("torch.")


def new_states(operands: Operands, cu_seqlens: torch.Tensor | None, backend: str) -> torch.Tensor:
    """Room for the state before each span, as many as the shapes allow.

    ``[spans, G, N, D / G]`` for the torch backend, ``[spans, D, N]`` for the kernels.
    """
    batch, total, channels = operands.u.shape
    spans = max_chunks(batch * total, count_sequences(cu_seqlens, batch), SPANS[backend])
    shape: tuple[int, ...] = (channels, operands.states)
    if backend == "torch":
        shape = (operands.groups, operands.states, channels // operands.groups)
    return operands.u.new_empty((spans, *shape), dtype=sum_dtype(operands.u))
