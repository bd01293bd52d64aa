"""HGRN's recurrence, step by step: what every other implementation is held against."""

from __future__ import annotations

import torch

from fla.utils._varlen import boundaries


def naive_recurrent_hgrn(
    x: torch.Tensor,
    g: torch.Tensor,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    cu_seqlens: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""The recurrence in words of one step, :math:`h_t = e^{g_t} \odot h_{t-1} + x_t`.

    Runs in float64 on float64 inputs and in float32 on all others, on any device, differentiated by autograd.
    Arguments and results are those of :func:`fla.ops.hgrn.chunk_hgrn`.
    """
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    batch, total, channels = x.shape
    x_, decay = x.to(dtype), g.to(dtype).exp()
    ends = [0, total] if cu_seqlens is None else boundaries(cu_seqlens, total)
    outputs: list[torch.Tensor] = []
    states: list[torch.Tensor] = []
    for n, (start, end) in enumerate(zip(ends, ends[1:], strict=False)):
        if initial_state is None:
            state = x_.new_zeros(batch, channels)
        else:
            state = (initial_state if cu_seqlens is None else initial_state[n : n + 1]).to(dtype)
        for t in range(start, end):
            state = decay[:, t] * state + x_[:, t]
            outputs.append(state)
        states.append(state)
    return torch.stack(outputs, 1).to(x.dtype), torch.cat(states) if output_final_state else None
