"""Attention by ``scaled_dot_product_attention``: every device and dtype, memory linear in the lengths."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F

from fla.utils.varlen import boundaries

#: Queries that share one block of a mask, at least.
_MIN_BLOCK = 256


def dense_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, window_size: int | None
) -> torch.Tensor:
    """Attention of q ``[B, T, HQ, K]``, the last T of S steps, over k and v ``[B, S, H, .]``."""
    steps, length = q.shape[1], k.shape[1]
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    # Only the half-precision kernels of a GPU take grouped heads; elsewhere PyTorch would write all scores out.
    grouped = q.shape[1] != k.shape[1]
    if grouped and not (q.is_cuda and q.dtype in (torch.float16, torch.bfloat16)):
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
        grouped = False
    if window_size is not None and window_size >= length:
        window_size = None
    if steps == 1:
        start = 0 if window_size is None else length - window_size
        o = F.scaled_dot_product_attention(q, k[:, :, start:], v[:, :, start:], scale=scale, enable_gqa=grouped)
    elif window_size is None and steps == length:
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=grouped)
    else:
        o = _blocked_attention(q, k, v, scale, length if window_size is None else window_size, grouped)
    return o.transpose(1, 2)


def _blocked_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, window_size: int, grouped: bool
) -> torch.Tensor:
    """Head-first attention, block of queries by block, each over the keys that one of its queries sees."""
    steps, length = q.shape[2], k.shape[2]
    block = max(_MIN_BLOCK, min(window_size, 4 * _MIN_BLOCK))
    outputs = []
    for start in range(0, steps, block):
        end = min(start + block, steps)
        first, last = max(length - steps + start + 1 - window_size, 0), length - steps + end
        at = torch.arange(last - (end - start), last, device=q.device)
        distance = at[:, None] - torch.arange(first, last, device=q.device)
        seen = (distance >= 0) & (distance < window_size)
        outputs.append(
            F.scaled_dot_product_attention(
                q[:, :, start:end],
                k[:, :, first:last],
                v[:, :, first:last],
                attn_mask=seen,
                scale=scale,
                enable_gqa=grouped,
            )
        )
    return torch.cat(outputs, 2)


def packed_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    window_size: int | None,
    cu_seqlens: torch.Tensor,
    cu_seqlens_k: torch.Tensor | None,
) -> torch.Tensor:
    """:func:`dense_attention`, sequence by sequence. Waits for the device."""
    ends = boundaries(cu_seqlens, q.shape[1])
    ends_k = ends if cu_seqlens_k is None else boundaries(cu_seqlens_k, k.shape[1])
    outputs = []
    for (start, end), (start_k, end_k) in zip(pairwise(ends), pairwise(ends_k)):
        if end - start > end_k - start_k:
            raise ValueError(
                f"cu_seqlens_k: expected at least {end - start} keys for a sequence, got {end_k - start_k}"
            )
        if end > start:
            keys, values = k[:, start_k:end_k], v[:, start_k:end_k]
            outputs.append(dense_attention(q[:, start:end], keys, values, scale, window_size))
    return torch.cat(outputs, 1)
