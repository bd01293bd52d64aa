"""Rotary positions of layers whose cache keeps no keys: they count the real tokens of each sequence."""

from __future__ import annotations

import torch

from fla.layers.base import Call
from fla.modules import RotaryEmbedding


def rotate_from(
    seen: torch.Tensor | None, rotary: RotaryEmbedding, q: torch.Tensor, k: torch.Tensor, call: Call
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Turn queries and keys ``[B, T, H, K]`` by their positions.

    Args:
        seen: number of tokens of each sequence ``[N]`` so far; None where the cache has counted them.
        rotary: the embedding that turns them.
        q: queries.
        k: keys.
        call: the layer's call.

    Returns:
        ``(q, k, seen)``, the last after this call.
    """
    start = call.past if seen is None else seen
    q, k = rotary(q, k, start, call.cu_seqlens, call.past + call.steps)
    if call.cu_seqlens is not None:
        return q, k, start + call.cu_seqlens.diff()
    return q, k, start + call.steps if isinstance(start, torch.Tensor) else None
