"""The table of chunks, which a kernel derives from the boundaries."""

from __future__ import annotations

import pytest
import torch

from fla.ops import chunk_gla, fused_recurrent_gla
from fla.utils.numerics import assert_close
from fla.utils.testing.rewrites import REWRITES
from fla.utils.varlen import max_chunks
from fla.utils.varlen_launch import CHUNKS, SEQUENCES, ChunkTable, chunk_table

LENGTHS = {
    "one sequence": [200],
    "one step": [1],
    "empty first, last and between": [0, 0, 70, 0, 1, 0],
    "nearly all empty": [0] * (SEQUENCES + 10) + [130] + [0] * SEQUENCES,
    "one step each": [1] * (2 * SEQUENCES + 3),
    "one chunk each": [16] * SEQUENCES,
    "chunks that fill a block": [16 * CHUNKS, 16 * CHUNKS, 5],
    "of all kinds": [(7 * n * n) % 90 for n in range(SEQUENCES + 50)],
}


def table_of(lengths: list[int], chunk_size: int) -> ChunkTable:
    """Step by step on the host."""
    sequence, first_chunk = [], [0]
    for n, length in enumerate(lengths):
        chunks = -(-length // chunk_size)
        sequence += [n] * chunks
        first_chunk.append(first_chunk[-1] + chunks)
    missing = max_chunks(sum(lengths), len(lengths), chunk_size) - len(sequence)
    return ChunkTable(torch.tensor(sequence + [-1] * missing), torch.tensor(first_chunk))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_the_table_is_right_for_any_lengths(lengths: list[int], dtype: torch.dtype, device: torch.device) -> None:
    cu_seqlens = torch.tensor([0, *lengths], device=device).cumsum(0, dtype=dtype)
    expected, got = table_of(lengths, 16), chunk_table(cu_seqlens, sum(lengths), 16)
    assert got.sequence.tolist() == expected.sequence.tolist()
    assert got.first_chunk.tolist() == expected.first_chunk.tolist()


@pytest.mark.parametrize("how", REWRITES)
def test_the_table_follows_boundaries_rewritten_in_place(how: str, device: torch.device) -> None:
    ends = REWRITES[how]([0, 40, 120], device)
    chunk_table(ends.tensor, 120, 16)
    ends.rewrite([0, 80, 120])
    assert chunk_table(ends.tensor, 120, 16).first_chunk.tolist() == [0, 5, 8]


@pytest.mark.parametrize("op", [chunk_gla, fused_recurrent_gla])
def test_kernels_take_boundaries_of_any_stride(op: object, device: torch.device) -> None:
    q, g = torch.randn(1, 12, 2, 16, device=device), -torch.rand(1, 12, 2, 16, device=device)
    scattered = torch.tensor([0, 9, 4, 9, 12], device=device)[::2]
    assert callable(op)
    expected, _ = op(q, q, q, g, cu_seqlens=scattered, backend="torch")
    assert_close("o", expected, op(q, q, q, g, cu_seqlens=scattered, backend="triton")[0], 1e-5)
