"""What kernels need to know about packed sequences, derived on the device in each call.

Shared by the five wheels; not public: it may change in any release.

Nothing is kept: the boundaries may be rewritten in ways that no tensor shows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton

from fla.utils.plans import launch
from fla.utils.varlen import max_chunks
from fla.utils.varlen_kernels import chunk_table_kernel

#: Sequences and chunks that a program of the table takes at once.
SEQUENCES, CHUNKS = 256, 64


class ChunkTable(NamedTuple):
    """Which sequence each chunk belongs to.

    The table has room for the largest number of chunks that the shapes allow, so that nothing has to be
    read back from the device: rows past the last chunk hold -1.
    """

    sequence: torch.Tensor
    """int32 [max_chunks]: the sequence of the chunk, or -1."""
    first_chunk: torch.Tensor
    """int32 [N + 1]: the index of each sequence's first chunk, then the number of chunks."""


def chunk_table(cu_seqlens: torch.Tensor, total: int, chunk_size: int) -> ChunkTable:
    """The chunk table of ``cu_seqlens``, made on its device without waiting for it."""
    sequences = cu_seqlens.shape[0] - 1
    chunks = max_chunks(total, sequences, chunk_size)
    sequence = torch.empty(chunks, dtype=torch.int32, device=cu_seqlens.device)
    first_chunk = torch.empty(sequences + 1, dtype=torch.int32, device=cu_seqlens.device)
    # Room for the last entry of first_chunk, which is no chunk's index but may be as large as their number.
    launch(
        chunk_table_kernel,
        (triton.cdiv(chunks + 1, CHUNKS),),
        cu_seqlens,
        sequence,
        first_chunk,
        sequences,
        chunks,
        C=chunk_size,
        BN=SEQUENCES,
        BC=CHUNKS,
        num_warps=4,
    )
    return ChunkTable(sequence, first_chunk)
