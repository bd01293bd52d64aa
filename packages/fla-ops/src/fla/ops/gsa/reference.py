"""Gated slot attention, step by step: what every other implementation is held against."""

from __future__ import annotations

import torch

from fla.ops._shared.arguments import sum_dtype
from fla.utils.varlen import boundaries


def gsa_reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    s: torch.Tensor,
    g: torch.Tensor | None = None,
    scale: float | None = None,
    initial_state: tuple[torch.Tensor, ...] | None = None,
    output_final_state: bool = False,
    reverse: bool = False,
    cu_seqlens: torch.Tensor | None = None,
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...] | None]:
    r"""The recurrence in words of one step: decay, write, and attention over the slots.

    .. math::
        H^k_t = H^k_{t-1} \mathrm{diag}(e^{g_t}) + k_t s_t^\top, \qquad
        H^v_t = \mathrm{diag}(e^{g_t}) H^v_{t-1} + s_t v_t^\top, \qquad
        o_t = {H^v_t}^\top \mathrm{softmax}(scale \cdot {H^k_t}^\top q_t)

    Runs in float64 on float64 inputs and in float32 on all others, on any device, differentiated by autograd.
    Arguments and results are those of :func:`fla.ops.gsa.fused_recurrent_gsa`.
    """
    dtype = sum_dtype(q)
    batch, total, heads, key_dim = q.shape
    scale = key_dim**-0.5 if scale is None else scale
    groups = heads // k.shape[2]
    q_, k_, v_, s_ = (x.to(dtype) for x in (q, k, v, s))
    g_ = None if g is None else g.to(dtype)
    ends = [0, total] if cu_seqlens is None else boundaries(cu_seqlens, total)
    outputs: list[torch.Tensor] = []
    finals: list[tuple[torch.Tensor, ...]] = []
    for n, (start, end) in enumerate(zip(ends, ends[1:])):
        state = _first_state(k_, v_, s_, initial_state, None if cu_seqlens is None else n, g is None)
        steps: list[torch.Tensor] = []
        for t in reversed(range(start, end)) if reverse else range(start, end):
            written, decay = s_[:, t], None if g_ is None else g_[:, t]
            keys, values, *log_sum = state
            if decay is None:
                now = torch.logaddexp(log_sum[0], written)
                written, decay = (written - now).exp(), log_sum[0] - now
                log_sum = [now]
            keys = keys * decay.exp().unsqueeze(-2) + k_[:, t, :, :, None] * written.unsqueeze(-2)
            values = values * decay.exp().unsqueeze(-1) + written.unsqueeze(-1) * v_[:, t, :, None, :]
            state = (keys, values, *log_sum)
            keys, values = (x.repeat_interleave(groups, 1) for x in (keys, values))
            weights = (scale * (q_[:, t, :, :, None] * keys).sum(-2)).softmax(-1)
            steps.append((weights.unsqueeze(-1) * values).sum(-2))
        outputs += reversed(steps) if reverse else steps
        finals.append(state)
    o = torch.stack(outputs, 1).to(v.dtype)
    return o, tuple(map(torch.cat, zip(*finals))) if output_final_state else None


#: Its older name.
naive_recurrent_gsa = gsa_reference


def _first_state(
    k: torch.Tensor,
    v: torch.Tensor,
    s: torch.Tensor,
    given: tuple[torch.Tensor, ...] | None,
    n: int | None,
    normalised: bool,
) -> tuple[torch.Tensor, ...]:
    """The state before the first step of sequence ``n``, or of the whole batch."""
    if given is not None:
        return tuple((x if n is None else x[n : n + 1]).to(k.dtype) for x in given)
    batch, heads, slots = k.shape[0], k.shape[2], s.shape[-1]
    empty = (k.new_zeros(batch, heads, k.shape[-1], slots), k.new_zeros(batch, heads, slots, v.shape[-1]))
    return (*empty, k.new_full((batch, heads, slots), -torch.inf)) if normalised else empty
