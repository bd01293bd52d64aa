r"""The generalized delta rule (DPLR) in chunks, in plain PyTorch matmuls.

A step reads the state before it decays, w_t = S_{t-1}^T a_t, and writes twice: S_t = diag(e^{gk}) S_{t-1} + b_t w_t^T +
k_t v_t^T. Were w known, this would be linear attention with the keys k and b and the values v and w. In a chunk of C
steps with the state S at its start

    (I - A_b) W = A_read S + A_k V                   O = Q_read S + Q_k V + Q_b W
    S' = e^{total} S + K_write^T V + B_write^T W

where A_b and A_k hold the pairs of a with earlier b and k, Q_b and Q_k those of q with earlier and own b and k, and the
suffixes say how decay enters (see ``_shared/decay.py``). (I - A_b)^-1 is applied to A_read and A_k V of all chunks at
once, so that the walk over chunks has two products a step. Its gradient is the same walk in reverse, with the
transposes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from fla.ops._shared.arguments import sum_dtype
from fla.ops._shared.causality import keeps_causality
from fla.ops._shared.chunks import ChunkLayout
from fla.ops._shared.decay import ChunkDecay, chunk_decay

CHUNK_SIZE = 64


class _Chunks(NamedTuple):
    """The operands in chunks ``[M, H, C, D]`` and what both passes need of them."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    a: torch.Tensor
    b: torch.Tensor
    decay: ChunkDecay
    inverse: torch.Tensor
    """Of I - A_b ``[M, H, C, C]``."""
    pairs: torch.Tensor
    """A_k ``[M, H, C, C]``."""


@keeps_causality(("k", "v", "a", "b"), ("gk",))
def chunk_dplr_delta_rule_fwd_torch(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    gk: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs ``[B, T, H, V]`` and final states ``[N, H, K, V]``."""
    layout = ChunkLayout(q.shape[0], q.shape[1], CHUNK_SIZE, cu_seqlens)
    c = _chunks(layout, q, k, v, a, b, gk, scale)
    w, states, final, _ = _walk(layout, c, initial_state)
    o = c.decay.pairs(c.q, c.k) @ c.v
    o += c.decay.pairs(c.q, c.b) @ w
    o += c.decay.read(c.q) @ states
    return layout.join(o, v.dtype), final


def chunk_dplr_delta_rule_bwd_torch(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    gk: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    do: torch.Tensor,
    dfinal_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
) -> tuple[
    torch.Tensor,
    torch.Tensor,
    torch.Tensor,
    torch.Tensor,
    torch.Tensor,
    torch.Tensor | None,
    torch.Tensor,
]:
    """Gradients of q, k, v, a, b, gk and the initial states."""
    layout = ChunkLayout(q.shape[0], q.shape[1], CHUNK_SIZE, cu_seqlens)
    c = _chunks(layout, q, k, v, a, b, gk, scale)
    decay = c.decay
    w, states, _, read = _walk(layout, c, initial_state)
    do_ = layout.split(do, w.dtype)

    # In reverse the roles of reading and writing are exchanged: dW = Q_b^T dO - (-B_write) dS.
    dw = decay.pairs(c.q, c.b).transpose(-1, -2) @ do_
    dread = decay.read(c.q).transpose(-1, -2) @ do_
    dw, dstates, dinitial_state = layout.correct(
        dw, -decay.write(c.b), -read, dread, decay.total, dfinal_state, reverse=True
    )
    dbase = c.inverse.transpose(-1, -2) @ dw

    dv = decay.pairs(c.q, c.k).transpose(-1, -2) @ do_
    dv += c.pairs.transpose(-1, -2) @ dbase
    dv += decay.write(c.k) @ dstates

    dq, dk = decay.pairs_grad(c.q, c.k, (do_ @ c.v.transpose(-1, -2)).tril_())
    dq_, db = decay.pairs_grad(c.q, c.b, (do_ @ w.transpose(-1, -2)).tril_())
    dq += dq_
    dq += decay.read_grad(c.q, do_ @ states.transpose(-1, -2))
    da, dk_ = decay.pairs_grad(c.a, c.k, (dbase @ c.v.transpose(-1, -2)).tril_(-1), before=True)
    da_, db_ = decay.pairs_grad(c.a, c.b, (dbase @ w.transpose(-1, -2)).tril_(-1), before=True)
    da += da_
    da += decay.read_grad(c.a, dbase @ states.transpose(-1, -2), before=True)
    dk += dk_
    dk += decay.write_grad(c.k, c.v @ dstates.transpose(-1, -2))
    db += db_
    db += decay.write_grad(c.b, w @ dstates.transpose(-1, -2))
    decay.total_grad(states, dstates)

    dgk_ = decay.gradient()
    gradients = zip((dq.mul_(scale), dk, dv, da, db), (q, k, v, a, b))
    dq, dk, dv, da, db = (layout.join(d, x.dtype) for d, x in gradients)
    return dq, dk, dv, da, db, None if gk is None or dgk_ is None else layout.join(dgk_, gk.dtype), dinitial_state


def _chunks(
    layout: ChunkLayout,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    gk: torch.Tensor | None,
    scale: float,
) -> _Chunks:
    dtype = sum_dtype(q)
    q_, k_, v_, a_, b_ = (layout.split(x, dtype) for x in (q, k, v, a, b))
    decay = chunk_decay(None if gk is None else layout.split(gk, dtype))
    pairs = decay.pairs(a_, b_, before=True).neg_()
    unit = torch.eye(CHUNK_SIZE, dtype=dtype, device=q.device).expand_as(pairs)
    # Only what is below the diagonal is looked at: the diagonal of the unit triangular matrix is taken as one.
    inverse = torch.linalg.solve_triangular(pairs, unit, upper=False, unitriangular=True)
    return _Chunks(q_.mul_(scale), k_, v_, a_, b_, decay, inverse, decay.pairs(a_, k_, before=True))


def _walk(
    layout: ChunkLayout, c: _Chunks, initial_state: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """W of all chunks, the state before each, the final states, and -(I - A_b)^-1 A_read."""
    read = -(c.inverse @ c.decay.read(c.a, before=True))
    base = c.inverse @ (c.pairs @ c.v)
    updates = c.decay.write(c.k).transpose(-1, -2) @ c.v
    return *layout.correct(base, read, c.decay.write(c.b), updates, c.decay.total, initial_state), read
