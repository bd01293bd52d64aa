"""Packed sequences on the host.

Shared by the five wheels; not public: it may change in any release.
"""

from __future__ import annotations

import torch

from fla.utils.validation import check_boundaries


def max_chunks(total: int, sequences: int, chunk_size: int) -> int:
    """Upper bound on the number of chunks that ``sequences`` packed into ``total`` steps can have."""
    return total // chunk_size + sequences


def boundaries(cu_seqlens: torch.Tensor, total: int) -> list[int]:
    """The checked values of ``cu_seqlens``. Waits for the device: not for GPU paths.

    Raises:
        ValueError: the boundaries do not start at 0, fall, or do not end at ``total``.
    """
    values: list[int] = cu_seqlens.tolist()
    check_boundaries(values, total)
    return values
