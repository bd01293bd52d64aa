"""Gated linear attention step by step in plain PyTorch: decoding on any device, and the gradient of value decays."""

from __future__ import annotations

from typing import NamedTuple

import torch

from fla.utils.validation import count_sequences
from fla.utils.varlen import boundaries

#: Of q, k, v, g, gk, gv, u and the initial states.
Gradients = tuple["torch.Tensor | None", ...]

#: The backward pass keeps the state of every step within a segment, and one state per segment.
SEGMENT = 32


def recurrent_gla_fwd_torch(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor | None,
    gk: torch.Tensor | None,
    gv: torch.Tensor | None,
    u: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs ``[B, T, H, V]`` and final states ``[N, H, K, V]``."""
    if cu_seqlens is None:
        return _forward(q, k, v, g, gk, gv, u, initial_state, scale)
    parts = [
        _forward(q[:, s], k[:, s], v[:, s], _at(g, s), _at(gk, s), _at(gv, s), u, _of(initial_state, n), scale)
        for n, s in enumerate(_spans(cu_seqlens, q.shape[1]))
    ]
    return torch.cat([o for o, _ in parts], 1), torch.cat([state for _, state in parts])


def _forward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor | None,
    gk: torch.Tensor | None,
    gv: torch.Tensor | None,
    u: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    q_, k_, v_, decay = _upcast(q, k, v, g, gk, gv)
    state = _first_state(q_, v_, initial_state)
    o = torch.empty_like(v_)
    for t in range(q.shape[1]):
        if u is None:
            _step(state, k_, v_, decay, t)
            o[:, t] = (q_[:, t, :, None, :] @ state).squeeze(-2)
        else:
            diagonal = (q_[:, t] * u.to(q_.dtype) * k_[:, t]).sum(-1, keepdim=True)
            o[:, t] = (q_[:, t, :, None, :] @ state).squeeze(-2) + diagonal * v_[:, t]
            _step(state, k_, v_, decay, t)
    return o.mul_(scale).to(v.dtype), state


def recurrent_gla_bwd_torch(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    gk: torch.Tensor | None,
    gv: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    do: torch.Tensor,
    dfinal_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
) -> Gradients:
    """Gradients of q, k, v, gk, gv and the initial states. Waits for no device: boundaries are looked up there."""
    q_, k_, v_, decay = _upcast(q, k, v, None, gk, gv)
    do_ = do.to(q_.dtype) * scale
    dq, dk, dv = torch.empty_like(q_), torch.empty_like(k_), torch.empty_like(v_)
    dgk, dgv = torch.empty_like(k_), torch.empty_like(v_)
    total = q.shape[1]
    edges = None if cu_seqlens is None else _Edges.of(cu_seqlens, total)
    start, dend = (_first_state(q_, v_, state, cu_seqlens) for state in (initial_state, dfinal_state))
    starts = _segment_starts(k_, v_, decay, start, edges)
    # Of an empty sequence the gradient passes through.
    dstart = dend.clone()
    dstate = dend if edges is None else torch.zeros_like(dend[:1])
    for first, state in reversed(list(zip(range(0, total, SEGMENT), starts, strict=True))):
        steps = []
        for t in range(first, min(first + SEGMENT, total)):
            before = state if edges is None else edges.enter(state, start, t)
            state = _step(before.clone(), k_, v_, decay, t)
            steps.append((t, before, state))
        for t, before, state in reversed(steps):
            if edges is not None:
                dstate = edges.leave(dstate, dend, t)
            dq[:, t] = (state @ do_[:, t, :, :, None]).squeeze(-1)
            dstate += q_[:, t, :, :, None] * do_[:, t, :, None, :]
            dk[:, t] = (dstate @ v_[:, t, :, :, None]).squeeze(-1)
            dv[:, t] = (k_[:, t, :, None, :] @ dstate).squeeze(-2)
            _decay(dstate, decay, t)
            product = before * dstate
            dgk[:, t], dgv[:, t] = product.sum(-1), product.sum(-2)
            if edges is not None:
                dstart.index_copy_(0, edges.sequence[t : t + 1], dstate)
    return (
        dq.to(q.dtype),
        dk.to(k.dtype),
        dv.to(v.dtype),
        None,
        None if gk is None else dgk.to(gk.dtype),
        None if gv is None else dgv.to(gv.dtype),
        None,
        dstate if edges is None else dstart,
    )


class _Edges(NamedTuple):
    """Where packed sequences begin and end, step by step, on the device."""

    sequence: torch.Tensor
    """int64 ``[T]``"""
    first: torch.Tensor
    """bool ``[T]``: whether it is the first step of its sequence."""
    last: torch.Tensor
    """bool ``[T]``"""

    @classmethod
    def of(cls, cu_seqlens: torch.Tensor, total: int) -> _Edges:
        """Those of boundaries ``[N + 1]``."""
        step = torch.arange(total, device=cu_seqlens.device)
        sequence = torch.searchsorted(cu_seqlens[1:], step.to(cu_seqlens.dtype), right=True)
        return cls(sequence, step == cu_seqlens[sequence], step + 1 == cu_seqlens[sequence + 1])

    def enter(self, state: torch.Tensor, starts: torch.Tensor, t: int) -> torch.Tensor:
        """The state before step t: that of its sequence's start where it is the first."""
        return torch.where(self.first[t], starts.index_select(0, self.sequence[t : t + 1]), state)

    def leave(self, dstate: torch.Tensor, dends: torch.Tensor, t: int) -> torch.Tensor:
        """The gradient of the state after step t: that of its sequence's end where it is the last."""
        return torch.where(self.last[t], dends.index_select(0, self.sequence[t : t + 1]), dstate)


def _spans(cu_seqlens: torch.Tensor, total: int) -> list[slice]:
    ends = boundaries(cu_seqlens, total)
    return [slice(start, end) for start, end in zip(ends, ends[1:])]


def _at(x: torch.Tensor | None, span: slice) -> torch.Tensor | None:
    return None if x is None else x[:, span]


def _of(state: torch.Tensor | None, n: int) -> torch.Tensor | None:
    return None if state is None else state[n : n + 1]


def _upcast(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor | None,
    gk: torch.Tensor | None,
    gv: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """The operands in the dtype that sums are taken in, and the decay factors shaped to broadcast over a state."""
    dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    groups = v.shape[2] // q.shape[2]
    if groups > 1:
        q, k = q.repeat_interleave(groups, 2), k.repeat_interleave(groups, 2)
    decay = []
    if g is not None:
        decay.append(g.to(dtype).exp()[..., None, None])
    if gk is not None:
        decay.append(gk.to(dtype).exp().unsqueeze(-1))
    if gv is not None:
        decay.append(gv.to(dtype).exp().unsqueeze(-2))
    return q.to(dtype), k.to(dtype), v.to(dtype), decay


def _first_state(
    q: torch.Tensor, v: torch.Tensor, given: torch.Tensor | None, cu_seqlens: torch.Tensor | None = None
) -> torch.Tensor:
    if given is not None:
        return given.to(q.dtype, copy=True)
    return q.new_zeros(count_sequences(cu_seqlens, q.shape[0]), q.shape[2], q.shape[3], v.shape[3])


def _decay(state: torch.Tensor, decay: list[torch.Tensor], t: int) -> torch.Tensor:
    for factor in decay:
        state *= factor[:, t]
    return state


def _step(state: torch.Tensor, k: torch.Tensor, v: torch.Tensor, decay: list[torch.Tensor], t: int) -> torch.Tensor:
    """Advance the state by step ``t``, in place."""
    return _decay(state, decay, t).addcmul_(k[:, t, :, :, None], v[:, t, :, None, :])


def _segment_starts(
    k: torch.Tensor, v: torch.Tensor, decay: list[torch.Tensor], start: torch.Tensor, edges: _Edges | None
) -> list[torch.Tensor]:
    """The state before every segment, of whatever sequence is being read there."""
    state, starts = start.clone() if edges is None else torch.zeros_like(start[:1]), []
    for t in range(k.shape[1]):
        if t % SEGMENT == 0:
            starts.append(state.clone())
        if edges is not None:
            state = edges.enter(state, start, t)
        _step(state, k, v, decay, t)
    return starts
