"""Token shift in plain PyTorch: the torch backend, and in float64 the truth."""

from __future__ import annotations

import torch

from fla.modules.convolution.reference import sequence_positions


def token_shift_ref(
    x: torch.Tensor, cu_seqlens: torch.Tensor | None = None, cache: torch.Tensor | None = None
) -> torch.Tensor:
    """Differences ``[B, T, D]`` of :func:`fla.modules.token_shift.token_shift`; differentiated by autograd."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    channels = x.shape[2]
    inputs = x.to(dtype)
    if cu_seqlens is None:
        first = inputs.new_zeros(x.shape[0], 1, channels)
        if cache is not None:
            first = cache.to(dtype).view_as(first)
        previous = torch.cat([first, inputs[:, :-1]], 1)
    else:
        sequence, position = sequence_positions(cu_seqlens, x.shape[1])
        before = inputs.new_zeros(()) if cache is None else cache.to(dtype).view(-1, channels)[sequence]
        previous = torch.where((position == 0)[:, None], before, inputs.roll(1, 1))
    return (previous - inputs).to(x.dtype)


def last_tokens(x: torch.Tensor, cu_seqlens: torch.Tensor | None, cache: torch.Tensor | None) -> torch.Tensor:
    """The last token of every sequence ``[N, 1, D]``; of an empty one what came before it, zero without a cache."""
    if cu_seqlens is None:
        return x[:, -1:].clone(memory_format=torch.contiguous_format)
    start, end = cu_seqlens[:-1], cu_seqlens[1:]
    last = x[0][(end - 1).clamp(min=0)][:, None]
    before = x.new_zeros(()) if cache is None else cache.to(x.dtype).view_as(last)
    return torch.where((end > start)[:, None, None], last, before).contiguous()
