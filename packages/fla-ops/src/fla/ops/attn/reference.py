"""Softmax attention written out: what every other implementation is held against."""

from __future__ import annotations

import torch

from fla.utils.varlen import boundaries


def attn_reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float | None = None,
    window_size: int | None = None,
    cu_seqlens: torch.Tensor | None = None,
    cu_seqlens_k: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention with all scores in memory, in float64 on float64 inputs and in float32 on all others.

    Arguments and results are those of :func:`fla.ops.attn.parallel_attn`.
    """
    if cu_seqlens is None:
        return _attend(q, k, v, scale, window_size)
    ends = boundaries(cu_seqlens, q.shape[1])
    ends_k = ends if cu_seqlens_k is None else boundaries(cu_seqlens_k, k.shape[1])
    pieces = [
        _attend(q[:, start:end], k[:, start_k:end_k], v[:, start_k:end_k], scale, window_size)
        for start, end, start_k, end_k in zip(ends, ends[1:], ends_k, ends_k[1:])
    ]
    return torch.cat(pieces, 1)


#: Its older name.
naive_parallel_attn = attn_reference


def _attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float | None, window_size: int | None
) -> torch.Tensor:
    dtype = torch.promote_types(q.dtype, torch.float32)
    q_, k_, v_ = (x.to(dtype) for x in (q, k, v))
    k_, v_ = (x.repeat_interleave(q.shape[2] // k.shape[2], dim=2) for x in (k_, v_))
    steps, length = q.shape[1], k.shape[1]
    scores = torch.einsum("bthd,bshd->bhts", q_, k_) * (q.shape[-1] ** -0.5 if scale is None else scale)
    distance = torch.arange(length - steps, length, device=q.device)[:, None] - torch.arange(length, device=q.device)
    hidden = distance < 0
    if window_size is not None:
        hidden = hidden | (distance >= window_size)
    weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
    return torch.einsum("bhts,bshd->bthd", weights, v_).to(v.dtype)
