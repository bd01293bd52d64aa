"""HGRN's recurrence, step by step: what every other implementation is held against."""

from __future__ import annotations

import torch

from fla.ops._shared.arguments import sum_dtype
from fla.utils.varlen import boundaries


def hgrn_reference(
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
    dtype = sum_dtype(x)
    batch, total, channels = x.shape
    # Taken apart in one go: the gradient of an index would be as large as x, once for every step.
    inputs, decays = x.to(dtype).unbind(1), g.to(dtype).exp().unbind(1)
    ends = [0, total] if cu_seqlens is None else boundaries(cu_seqlens, total)
    outputs: list[torch.Tensor] = []
    states: list[torch.Tensor] = []
    for n, (start, end) in enumerate(zip(ends, ends[1:], strict=False)):
        if initial_state is None:
            state = x.new_zeros(batch, channels, dtype=dtype)
        else:
            state = (initial_state if cu_seqlens is None else initial_state[n : n + 1]).to(dtype)
        for t in range(start, end):
            state = decays[t] * state + inputs[t]
            outputs.append(state)
        states.append(state)
    return torch.stack(outputs, 1).to(x.dtype), torch.cat(states) if output_final_state else None


#: Its older name.
naive_recurrent_hgrn = hgrn_reference
