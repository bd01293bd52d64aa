"""The gated delta rule step by step in plain PyTorch: decoding anywhere, and gradients of what chunks cannot do."""

from __future__ import annotations

from typing import NamedTuple

import torch

from fla.ops._shared.arguments import sum_dtype, ungroup
from fla.utils.varlen import boundaries

#: Of q, k, v, beta, g, gk, gv, p and the initial states.
Gradients = tuple["torch.Tensor | None", ...]

#: The backward pass keeps the state of every step within a segment, and one state per segment.
SEGMENT = 32


class _Steps(NamedTuple):
    """Operands in the dtype that sums are taken in, those of query heads repeated for the value heads."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    beta: torch.Tensor
    """``[B, T, HV, 1 or V]``"""
    p: torch.Tensor
    decays: list[torch.Tensor]
    """Factors shaped to broadcast over a state."""
    before: bool
    """Whether p reads the state before it decays."""


def recurrent_delta_rule_fwd_torch(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    beta: torch.Tensor,
    g: torch.Tensor | None,
    gk: torch.Tensor | None,
    gv: torch.Tensor | None,
    p: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs ``[B, T, HV, V]`` and final states ``[N, HV, K, V]``."""
    steps = _steps(q, k, v, beta, g, gk, gv, p)
    o = torch.empty_like(steps.v)
    finals = []
    for span, state in _sequences(steps, initial_state, cu_seqlens):
        for t in range(span.start, span.stop):
            _step(state, steps, t)
            o[:, t] = (steps.q[:, t, :, None, :] @ state).squeeze(-2)
        finals.append(state)
    return o.mul_(scale).to(v.dtype), torch.cat(finals)


def recurrent_delta_rule_bwd_torch(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    beta: torch.Tensor,
    g: torch.Tensor | None,
    gk: torch.Tensor | None,
    gv: torch.Tensor | None,
    p: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    do: torch.Tensor,
    dfinal_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
) -> Gradients:
    """Gradients of q, k, v, beta, g, gk, gv, p and the initial states."""
    steps = _steps(q, k, v, beta, g, gk, gv, p)
    do_ = do.to(steps.q.dtype) * scale
    dq, dk, dp = (torch.empty_like(steps.q) for _ in range(3))
    dv, dbeta = torch.empty_like(steps.v), torch.empty_like(steps.v)
    dkeys, dvalues = torch.empty_like(steps.q), torch.empty_like(steps.v)
    dstarts = []
    starts = _sequences(steps, initial_state, cu_seqlens)
    ends = _sequences(steps, dfinal_state, cu_seqlens)
    for (span, state), (_, dstate) in zip(starts, ends):
        kept = []
        for t in range(span.start, span.stop):
            if (t - span.start) % SEGMENT == 0:
                kept.append(state.clone())
            _step(state, steps, t)
        for first, start in reversed(list(zip(range(span.start, span.stop, SEGMENT), kept))):
            segment = range(first, min(first + SEGMENT, span.stop))
            tape = [_step(start, steps, t, keep=True) for t in segment]
            for t, (read, decayed, missing, after) in reversed(list(zip(segment, tape))):
                q_, k_, p_ = (x[:, t].unsqueeze(-1) for x in (steps.q, steps.k, steps.p))
                dq[:, t] = (after @ do_[:, t].unsqueeze(-1)).squeeze(-1)
                dstate += q_ * do_[:, t].unsqueeze(-2)
                written = steps.beta[:, t] * missing
                dk[:, t] = (dstate @ written.unsqueeze(-1)).squeeze(-1)
                dwritten = (k_ * dstate).sum(-2)
                dbeta[:, t] = dwritten * missing
                dv[:, t] = steps.beta[:, t] * dwritten
                dp[:, t] = (read @ dv[:, t].unsqueeze(-1)).squeeze(-1).neg_()
                dread = p_ * dv[:, t].unsqueeze(-2)
                if not steps.before:
                    dstate -= dread
                product = decayed * dstate
                dkeys[:, t], dvalues[:, t] = product.sum(-1), product.sum(-2)
                for decay in steps.decays:
                    dstate *= decay[:, t]
                if steps.before:
                    dstate -= dread
        dstarts.append(dstate)
    dbeta = dbeta.sum(-1) if beta.dim() == 3 else dbeta
    if p is None:
        dk += dp
    return (
        ungroup(dq, q),
        ungroup(dk, k),
        dv.to(v.dtype),
        dbeta.to(beta.dtype),
        None if g is None else dkeys.sum(-1).to(g.dtype),
        None if gk is None else dkeys.to(gk.dtype),
        None if gv is None else dvalues.to(gv.dtype),
        None if p is None else ungroup(dp, p),
        torch.cat(dstarts),
    )


def _steps(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    beta: torch.Tensor,
    g: torch.Tensor | None,
    gk: torch.Tensor | None,
    gv: torch.Tensor | None,
    p: torch.Tensor | None,
) -> _Steps:
    dtype, groups = sum_dtype(q), v.shape[2] // q.shape[2]
    q_, k_, p_ = (x.to(dtype) for x in (q, k, k if p is None else p))
    if groups > 1:
        q_, k_, p_ = (x.repeat_interleave(groups, 2) for x in (q_, k_, p_))
    decays = []
    if g is not None:
        decays.append(g.to(dtype).exp()[..., None, None])
    if gk is not None:
        decays.append(gk.to(dtype).exp().unsqueeze(-1))
    if gv is not None:
        decays.append(gv.to(dtype).exp().unsqueeze(-2))
    beta_ = beta.to(dtype)
    return _Steps(q_, k_, v.to(dtype), beta_.unsqueeze(-1) if beta.dim() == 3 else beta_, p_, decays, p is not None)


def _sequences(
    steps: _Steps, given: torch.Tensor | None, cu_seqlens: torch.Tensor | None
) -> list[tuple[slice, torch.Tensor]]:
    """Of each group of sequences that run together the steps, and a copy of the given states."""
    batch, total, heads, key_dim = steps.q.shape
    if cu_seqlens is None:
        spans, count = [slice(0, total)], batch
    else:
        ends = boundaries(cu_seqlens, total)
        spans, count = [slice(start, end) for start, end in zip(ends, ends[1:])], 1
    if given is None:
        states = steps.q.new_zeros(count * len(spans), heads, key_dim, steps.v.shape[-1])
    else:
        states = given.to(steps.q.dtype, copy=True)
    return list(zip(spans, states.split(count)))


def _step(
    state: torch.Tensor, steps: _Steps, t: int, keep: bool = False
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Advance the state by step t, in place.

    Returns:
        The states that p reads and after decay, what was missed there, and the state after; states if to be kept.
    """
    read = state.clone() if keep and steps.before else state
    missing = _missing(read, steps, t) if steps.before else None
    for decay in steps.decays:
        state *= decay[:, t]
    decayed = state.clone() if keep else state
    if missing is None:
        read, missing = decayed, _missing(decayed, steps, t)
    state += steps.k[:, t].unsqueeze(-1) * (steps.beta[:, t] * missing).unsqueeze(-2)
    return read, decayed, missing, state.clone() if keep else state


def _missing(read: torch.Tensor, steps: _Steps, t: int) -> torch.Tensor:
    return steps.v[:, t] - (steps.p[:, t, :, None, :] @ read).squeeze(-2)
