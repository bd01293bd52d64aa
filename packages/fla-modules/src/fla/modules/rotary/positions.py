"""The position of every step in its own sequence."""

from __future__ import annotations

import torch


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
