"""The recurrence of RWKV-6, step by step: what every other implementation is held against."""

from __future__ import annotations

import torch

from fla.ops._shared.arguments import sum_dtype
from fla.utils.varlen import boundaries


def rwkv6_reference(
    r: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    w: torch.Tensor,
    u: torch.Tensor,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    reverse: bool = False,
    cu_seqlens: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""The recurrence in words of one step, :math:`S_t = \mathrm{diag}(e^{w_t}) S_{t-1} + k_t v_t^\top`.

    .. math:: o_t = scale \cdot (S_{t-1} + \mathrm{diag}(u) k_t v_t^\top)^\top r_t

    Runs in float64 on float64 inputs and in float32 on all others, on any device, differentiated by autograd.
    Arguments and results are those of :func:`fla.ops.rwkv6.fused_recurrent_rwkv6`.
    """
    dtype = sum_dtype(r)
    batch, total, heads, key_dim = r.shape
    scale = key_dim**-0.5 if scale is None else scale
    r_, k_, v_, u_ = (x.to(dtype) for x in (r, k, v, u))
    decay = w.to(dtype).exp()
    ends = [0, total] if cu_seqlens is None else boundaries(cu_seqlens, total)
    rows = batch if cu_seqlens is None else 1
    outputs: list[torch.Tensor] = []
    states: list[torch.Tensor] = []
    for n, (start, end) in enumerate(zip(ends, ends[1:])):
        if initial_state is None:
            state = r_.new_zeros(rows, heads, key_dim, v.shape[-1])
        else:
            state = (initial_state if cu_seqlens is None else initial_state[n : n + 1]).to(dtype)
        steps: list[torch.Tensor] = []
        for t in reversed(range(start, end)) if reverse else range(start, end):
            written = k_[:, t, :, :, None] * v_[:, t, :, None, :]
            steps.append(scale * (r_[:, t, :, :, None] * (state + u_[..., None] * written)).sum(-2))
            state = state * decay[:, t, :, :, None] + written
        outputs += reversed(steps) if reverse else steps
        states.append(state)
    return torch.stack(outputs, 1).to(v.dtype), torch.cat(states) if output_final_state else None


#: Its older name.
naive_recurrent_rwkv6 = rwkv6_reference
