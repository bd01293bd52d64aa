"""How launchers cut a call into chunks: shared by every ``launch.py``."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton

from fla.ops._shared.kept import kept
from fla.utils.varlen import max_chunks
from fla.utils.varlen_launch import chunk_table


class Chunks(NamedTuple):
    """How the steps of a call are cut into chunks, in the form that kernels take."""

    total: int
    sequences: int
    cu_seqlens: torch.Tensor | None
    sequence: torch.Tensor | None
    first_chunk: torch.Tensor | None

    @property
    def packed(self) -> bool:
        """Whether sequences are packed."""
        return self.cu_seqlens is not None


def cut(q: torch.Tensor, cu_seqlens: torch.Tensor | None, size: int) -> Chunks:
    """Chunks of ``size`` steps of q ``[B, T, ...]``, without waiting for the device."""
    batch, total = q.shape[:2]
    if cu_seqlens is None:
        return Chunks(batch * triton.cdiv(total, size), batch, None, None, None)
    table = chunk_table(cu_seqlens, total, size)
    sequences = cu_seqlens.shape[0] - 1
    return Chunks(max_chunks(total, sequences, size), sequences, cu_seqlens, table.sequence, table.first_chunk)


def precision() -> str:
    """Three TF32 products make a float32 one on NVIDIA's tensor cores; others multiply float32 as it is."""
    return "ieee" if torch.version.hip else "tf32x3"


def inverse_precision(dtype: torch.dtype) -> str:
    """How triangles are inverted: in two halves each, which keep what repeated keys leave of half-precision operands.

    That is more than TF32 keeps, by instructions that are faster.
    """
    return precision() if dtype == torch.float32 or precision() == "ieee" else "halves"


@kept
def half_spans(device: torch.device, chunk: int, bonus: bool, dtype: torch.dtype) -> torch.Tensor:
    """0/1 matrices ``[level, i, t]``: t lies between i and the middle of i's block of ``2 << level`` steps.

    For i in the late half of its block these are the steps after the middle, up to and with i; for i in the early
    half the steps after i, up to the middle. With a bonus a query comes before its step's decay, and i itself is out.
    """
    i, t = torch.arange(chunk, device=device)[:, None], torch.arange(chunk, device=device)[None, :]
    levels = []
    for level in range(chunk.bit_length() - 1):
        late = ((i >> level) & 1) == 1
        levels.append(((i >> level) == (t >> level)) & torch.where(late, t < i + (not bonus), t > i))
    return torch.stack(levels).to(dtype)
