"""State-space duality, step by step: what every other implementation is held against."""

from __future__ import annotations

import torch

from fla.ops._shared.arguments import sum_dtype
from fla.utils.varlen import boundaries


def ssd_reference(
    x: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None = None,
    z: torch.Tensor | None = None,
    dt_bias: torch.Tensor | None = None,
    initial_states: torch.Tensor | None = None,
    cu_seqlens: torch.Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
    return_final_states: bool = False,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    r"""The recurrence :math:`h_t = e^{\Delta_t A} h_{t-1} + \Delta_t x_t B_t^\top`, :math:`y_t = h_t C_t`.

    Runs in float64 on float64 inputs and in float32 on all others, on any device, differentiated by autograd.
    Arguments and results are those of :func:`fla.ops.ssd.mamba_chunk_scan`.
    """
    dtype = sum_dtype(x)
    batch, total, heads, head_dim = x.shape
    step = dt.to(dtype)
    if dt_bias is not None:
        step = step + dt_bias.to(dtype)
    if dt_softplus:
        step = torch.logaddexp(step, torch.zeros_like(step))
    step = torch.minimum(torch.maximum(step, step.new_tensor(dt_limit[0])), step.new_tensor(dt_limit[1]))
    # Taken apart in one go: the gradient of an index would be as large as x, once for every step.
    decays = (step * A.to(dtype)).exp()[..., None, None].unbind(1)
    inputs = (step[..., None] * x.to(dtype))[..., None].unbind(1)
    groups = heads // B.shape[2]
    keys, queries = (y.to(dtype).repeat_interleave(groups, 2).unsqueeze(3).unbind(1) for y in (B, C))

    ends = [0, total] if cu_seqlens is None else boundaries(cu_seqlens, total)
    outputs: list[torch.Tensor] = []
    states: list[torch.Tensor] = []
    for n, (start, end) in enumerate(zip(ends, ends[1:], strict=False)):
        if initial_states is None:
            state = x.new_zeros(batch, heads, head_dim, B.shape[3], dtype=dtype)
        else:
            state = (initial_states if cu_seqlens is None else initial_states[n : n + 1]).to(dtype)
        for t in range(start, end):
            state = decays[t] * state + inputs[t] * keys[t]
            outputs.append((state * queries[t]).sum(-1))
        states.append(state)
    y = torch.stack(outputs, 1)
    if D is not None:
        y = y + x.to(dtype) * D.to(dtype).reshape(heads, -1)
    if z is not None:
        y = y * z.to(dtype) * z.to(dtype).sigmoid()
    y = y.to(x.dtype)
    return (y, torch.cat(states)) if return_final_states else y


#: Its older name.
naive_recurrent_ssd = ssd_reference
