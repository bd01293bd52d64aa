"""The running log-sum-exp by its definition: what every other implementation is held against."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from fla.ops._shared.arguments import sum_dtype
from fla.utils.varlen import boundaries


def naive_normalised_writes(
    s: torch.Tensor,
    initial: torch.Tensor | None = None,
    cu_seqlens: torch.Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """One step after the other, differentiated by autograd.

    Runs in float64 on float64 inputs and in float32 on all others, on any device. Arguments and results are those of
    :func:`fla.ops.utils.normalised_writes`, and z ``[B, T, ...]``.
    """
    wide = sum_dtype(s)
    ends = [0, s.shape[1]] if cu_seqlens is None else boundaries(cu_seqlens, s.shape[1])
    steps: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    lasts: list[torch.Tensor] = []
    for n, (start, end) in enumerate(zip(ends, ends[1:])):
        if initial is None:
            z = s.new_full(s[:, 0].shape, -torch.inf, dtype=wide)
        else:
            z = (initial if cu_seqlens is None else initial[n : n + 1]).to(wide)
        for s_t in s[:, start:end].to(wide).unbind(1):
            before, z = z, torch.logaddexp(z, s_t)
            # z_{t-1} - z_t, which as a difference of large numbers would be rounded more.
            decay = torch.where(before.isneginf(), 0.0, F.logsigmoid(before - s_t))
            steps.append(((s_t - z).exp(), decay, z))
        lasts.append(z)
    write, decay, z = (torch.stack(x, 1) for x in zip(*steps))
    return write.to(wide if dtype is None else dtype), decay, torch.cat(lasts), z
