"""The tables that a rotation looks its angles up in, and the position of every step in its own sequence."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Tables(NamedTuple):
    """Cosines and sines ``[P, R / 2]`` by position: those of queries, and those of keys where they differ (xPos)."""

    cos: torch.Tensor
    sin: torch.Tensor
    cos_k: torch.Tensor | None = None
    sin_k: torch.Tensor | None = None

    @property
    def of_keys(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The tables of the keys."""
        return self.cos if self.cos_k is None else self.cos_k, self.sin if self.sin_k is None else self.sin_k


def token_positions(
    batch: int,
    total: int,
    device: torch.device,
    offset: int,
    offsets: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
) -> torch.Tensor:
    """Positions ``[B, T]``, or ``[1, T]`` where all rows agree, without waiting for the device.

    Args:
        batch: B.
        total: T.
        device: where to put them.
        offset: position of the first step of every sequence.
        offsets: the same per sequence ``[N]``; then ``offset`` is 0.
        cu_seqlens: boundaries of packed sequences ``[N + 1]``.
    """
    positions = torch.arange(offset, offset + total, device=device)[None]
    if cu_seqlens is None:
        return positions if offsets is None else positions + offsets[:, None]
    starts = cu_seqlens[:-1] if offsets is None else cu_seqlens[:-1] - offsets
    return positions - torch.repeat_interleave(starts, cu_seqlens.diff(), output_size=total)
