"""What kernels need to know about packed sequences, computed once per ``cu_seqlens`` and kept with it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.utils.weak import WeakTensorKeyDictionary

from fla.utils._validation import check_boundaries


class ChunkTable(NamedTuple):
    """Which sequence each chunk belongs to.

    The table has room for the largest number of chunks that the shapes allow, so that nothing has to be
    read back from the device: rows past the last chunk hold -1.
    """

    sequence: torch.Tensor
    """int32 [max_chunks]: the sequence of the chunk, or -1."""
    first_chunk: torch.Tensor
    """int32 [N + 1]: the index of each sequence's first chunk, then the number of chunks."""


_TABLES = WeakTensorKeyDictionary()
_BOUNDARIES = WeakTensorKeyDictionary()


def version_of(tensor: torch.Tensor) -> int:
    """A number that changes when the tensor is written to; inference tensors do not count, so it is 0 for them."""
    return 0 if tensor.is_inference() else tensor._version


def max_chunks(total: int, sequences: int, chunk_size: int) -> int:
    """Upper bound on the number of chunks that ``sequences`` packed into ``total`` steps can have."""
    return total // chunk_size + sequences


def chunk_table(cu_seqlens: torch.Tensor, total: int, chunk_size: int) -> ChunkTable:
    """The chunk table of ``cu_seqlens``, made on its device without waiting for it."""
    tables = _TABLES.get(cu_seqlens)
    key = (version_of(cu_seqlens), total, chunk_size)
    if tables is None or key not in tables:
        tables = {**(tables or {}), key: _make_chunk_table(cu_seqlens, total, chunk_size)}
        _TABLES[cu_seqlens] = tables
    return tables[key]  # type: ignore[no-any-return]


def _make_chunk_table(cu_seqlens: torch.Tensor, total: int, chunk_size: int) -> ChunkTable:
    chunks = (cu_seqlens.diff() + (chunk_size - 1)) // chunk_size
    first_chunk = torch.zeros(cu_seqlens.shape[0], dtype=torch.int32, device=cu_seqlens.device)
    torch.cumsum(chunks, 0, dtype=torch.int32, out=first_chunk[1:])
    index = torch.arange(max_chunks(total, chunks.shape[0], chunk_size), dtype=torch.int32, device=cu_seqlens.device)
    sequence = torch.searchsorted(first_chunk[1:], index, right=True, out_int32=True)
    return ChunkTable(torch.where(index < first_chunk[-1], sequence, -1), first_chunk)


def boundaries(cu_seqlens: torch.Tensor, total: int) -> list[int]:
    """The checked values of ``cu_seqlens`` on the host. Waits for the device: not for GPU paths.

    Raises:
        ValueError: the boundaries do not start at 0, fall, or do not end at ``total``.
    """
    cached = _BOUNDARIES.get(cu_seqlens)
    version = version_of(cu_seqlens)
    if cached is None or cached[0] != version:
        cached = (version, cu_seqlens.tolist())
        _BOUNDARIES[cu_seqlens] = cached
    check_boundaries(cached[1], total)
    return cached[1]  # type: ignore[no-any-return]
