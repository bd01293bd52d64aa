"""The rotation in plain PyTorch: the truth in float64, and the path for machines without a GPU."""

from __future__ import annotations

import torch

from fla.modules.rotary.positions import token_positions


def rotary_embedding_ref(
    x: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    interleaved: bool,
    offset: int,
    offsets: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
) -> torch.Tensor:
    """Rotate the first ``2 * cos.shape[1]`` channels of x ``[B, T, H, D]`` in float32 (float64 for float64 inputs)."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    width = 2 * cos.shape[1]
    positions = token_positions(x.shape[0], x.shape[1], x.device, offset, offsets, cu_seqlens)
    cos_, sin_ = (table.detach()[positions].to(dtype)[:, :, None] for table in (cos, sin))
    turned = x[..., :width].to(dtype)
    first, second = (turned[..., ::2], turned[..., 1::2]) if interleaved else turned.chunk(2, -1)
    pair = (first * cos_ - second * sin_, second * cos_ + first * sin_)
    rotated = (torch.stack(pair, -1).flatten(-2) if interleaved else torch.cat(pair, -1)).to(x.dtype)
    return rotated if width == x.shape[-1] else torch.cat((rotated, x[..., width:]), -1)
