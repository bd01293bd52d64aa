"""The selective scan, step by step: what every other implementation is held against."""

from __future__ import annotations

import torch

from fla.ops._shared.arguments import sum_dtype
from fla.utils.varlen import boundaries


def mamba_reference(
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None = None,
    z: torch.Tensor | None = None,
    delta_bias: torch.Tensor | None = None,
    delta_softplus: bool = False,
    initial_state: torch.Tensor | None = None,
    return_last_state: bool = False,
    cu_seqlens: torch.Tensor | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    r"""The recurrence :math:`h_t = e^{\delta_t A} h_{t-1} + \delta_t u_t B_t`, :math:`y_t = h_t C_t`.

    Runs in float64 on float64 inputs and in float32 on all others, on any device, differentiated by autograd.
    Arguments and results are those of :func:`fla.ops.mamba.selective_scan`.
    """
    dtype = sum_dtype(u)
    batch, channels, total = u.shape
    step = delta.to(dtype)
    if delta_bias is not None:
        step = step + delta_bias.to(dtype)[:, None]
    if delta_softplus:
        step = torch.logaddexp(step, torch.zeros_like(step))
    # Taken apart in one go: the gradient of an index would be as large as u, once for every step.
    steps, inputs = step.unsqueeze(2).unbind(-1), (step * u.to(dtype)).unsqueeze(2).unbind(-1)
    written, read = (
        (x if x.ndim == 4 else x.unsqueeze(1)).to(dtype).repeat_interleave(channels // _groups(x), 1).unbind(-1)
        for x in (B, C)
    )
    rates = A.to(dtype)

    ends = [0, total] if cu_seqlens is None else boundaries(cu_seqlens, total)
    outputs: list[torch.Tensor] = []
    states: list[torch.Tensor] = []
    for n, (start, end) in enumerate(zip(ends, ends[1:], strict=False)):
        if initial_state is None:
            state = u.new_zeros(batch, channels, A.shape[1], dtype=dtype)
        else:
            state = (initial_state if cu_seqlens is None else initial_state[n : n + 1]).to(dtype)
        for t in range(start, end):
            state = (steps[t] * rates).exp() * state + inputs[t] * written[t]
            outputs.append((state * read[t]).sum(-1))
        states.append(state)
    y = torch.stack(outputs, -1)
    if D is not None:
        y = y + u.to(dtype) * D.to(dtype)[:, None]
    if z is not None:
        y = y * z.to(dtype) * z.to(dtype).sigmoid()
    y = y.to(u.dtype)
    return (y, torch.cat(states)) if return_last_state else y


#: Its older name.
naive_selective_scan = mamba_reference


def _groups(x: torch.Tensor) -> int:
    return x.shape[1] if x.ndim == 4 else 1
