r"""The elementwise recurrence in plain PyTorch, on two levels.

Time is cut into chunks. All chunks walk their steps side by side, each from a state of zero; then the states at the
chunks' starts follow from one another; then each step adds what its chunk's start has decayed to. The gradient of h
obeys the same recurrence backwards, with the decay of the step after: :math:`dh_t = do_t + e^{g_{t+1}} dh_{t+1}`.
"""

from __future__ import annotations

import torch

from fla.ops._arguments import sum_dtype
from fla.ops._chunks_torch import ChunkLayout
from fla.utils._varlen import boundaries

CHUNK_SIZE = 64


def scan_fwd_torch(
    x: torch.Tensor, g: torch.Tensor, initial_state: torch.Tensor | None, cu_seqlens: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs ``[B, T, D]`` and final states ``[N, D]``."""
    dtype = sum_dtype(x)
    layout = ChunkLayout(x.shape[0], x.shape[1], min(CHUNK_SIZE, x.shape[1]), cu_seqlens)
    h, g_ = layout.split(x.unsqueeze(2), dtype), layout.split(g.unsqueeze(2), dtype)
    decay = g_.exp()
    for i in range(1, layout.chunk_size):
        h[:, :, i].addcmul_(decay[:, :, i], h[:, :, i - 1])
    # As products, because the sum of -inf and what follows it would be -inf as well.
    through = decay.cumprod(2)
    ends = h[:, :, -1].clone().unsqueeze(-1)
    starts, final = layout.scan(ends, through[:, :, -1], _columns(initial_state))
    h.addcmul_(through, starts.transpose(-1, -2))
    return layout.join(h, x.dtype).squeeze(2), final[:, 0, :, 0]


def scan_bwd_torch(
    g: torch.Tensor,
    o: torch.Tensor,
    initial_state: torch.Tensor | None,
    do: torch.Tensor,
    dfinal_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of x, g and the initial states."""
    dtype = sum_dtype(o)
    layout = ChunkLayout(o.shape[0], o.shape[1], min(CHUNK_SIZE, o.shape[1]), cu_seqlens)
    dh, g_ = layout.split(do.unsqueeze(2), dtype), layout.split(g.unsqueeze(2), dtype)
    decay = g_.exp()
    for i in reversed(range(layout.chunk_size - 1)):
        dh[:, :, i].addcmul_(decay[:, :, i + 1], dh[:, :, i + 1])
    after = torch.cat([decay[:, :, 1:], torch.ones_like(decay[:, :, :1])], 2).flip(2).cumprod(2).flip(2)
    through = after[:, :, 0] * decay[:, :, 0]
    firsts = (decay[:, :, 0] * dh[:, :, 0]).unsqueeze(-1)
    starts, dinitial = layout.scan(firsts, through, _columns(dfinal_state), reverse=True)
    dh.addcmul_(after, starts.transpose(-1, -2))
    dx = layout.join(dh, dtype).squeeze(2)
    dg = dx * g.to(dtype).exp() * _previous(o.to(dtype), initial_state, cu_seqlens)
    return dx.to(o.dtype), dg.to(g.dtype), dinitial[:, 0, :, 0]


def _columns(state: torch.Tensor | None) -> torch.Tensor | None:
    """``[N, D]`` as the ``[N, 1, D, 1]`` of :meth:`ChunkLayout.scan`."""
    return None if state is None else state[:, None, :, None]


def _previous(o: torch.Tensor, initial_state: torch.Tensor | None, cu_seqlens: torch.Tensor | None) -> torch.Tensor:
    """The state before each step ``[B, T, D]``."""
    before = torch.cat([torch.zeros_like(o[:, :1]), o[:, :-1]], 1)
    if cu_seqlens is None:
        if initial_state is not None:
            before[:, 0] = initial_state
        return before
    ends = boundaries(cu_seqlens, o.shape[1])
    for n, (start, end) in enumerate(zip(ends, ends[1:])):
        if start < end:
            before[0, start] = 0.0 if initial_state is None else initial_state[n]
    return before
