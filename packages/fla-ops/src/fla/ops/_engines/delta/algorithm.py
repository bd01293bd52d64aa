r"""The gated delta rule in chunks, in plain PyTorch matmuls.

A step writes what its read of the decayed state misses: with the write key kappa = beta k, x_t = v_t - S'^T k_t and
S_t = S' + kappa_t x_t^T. With an erase key p it reads the state there instead, before that decays. Were x known, this
would be linear attention with keys kappa and values x. In a chunk of C steps with the state S at its start

    (I + P) X = V - P_read S        O = Q_read S + A X        S' = e^{total} S + kappa_write^T X

where P holds the pairs of p with earlier kappa, A those of q with earlier and own kappa, and the suffixes say how decay
enters (see ``_shared/decay.py``). V and P_read of all chunks are solved for at once, so that the walk over chunks has
two products a step. Solving errs less than multiplying by an inverse. The gradient is the same walk in reverse, with
the transposes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from fla.ops._shared.arguments import sum_dtype, ungroup
from fla.ops._shared.causality import keeps_causality
from fla.ops._shared.chunks import ChunkLayout
from fla.ops._shared.decay import ChunkDecay, chunk_decay

CHUNK_SIZE = 32


class _Chunks(NamedTuple):
    """The operands in chunks ``[M, HV, C, D]`` and what both passes need of them."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    beta: torch.Tensor
    """``[M, HV, C, 1]``"""
    write_key: torch.Tensor
    erase_key: torch.Tensor
    decay: ChunkDecay
    pairs: torch.Tensor
    """P ``[M, HV, C, C]``; what is on and above its diagonal does not count."""
    before: bool
    """Whether erase keys read the state before it decays."""

    def solve(self, right: torch.Tensor) -> torch.Tensor:
        """(I + P)^-1 of ``[M, HV, C, D]``."""
        x: torch.Tensor = torch.linalg.solve_triangular(self.pairs, right, upper=False, unitriangular=True)
        return x

    def solve_transposed(self, right: torch.Tensor) -> torch.Tensor:
        """The transpose of (I + P)^-1, of ``[M, HV, C, D]``."""
        pairs = self.pairs.transpose(-1, -2)
        x: torch.Tensor = torch.linalg.solve_triangular(pairs, right, upper=True, unitriangular=True)
        return x


@keeps_causality(("k", "v", "beta", "p"), ("g",))
def chunk_gated_delta_rule_fwd_torch(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    beta: torch.Tensor,
    g: torch.Tensor | None,
    p: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs ``[B, T, HV, V]`` and final states ``[N, HV, K, V]``."""
    layout = ChunkLayout(q.shape[0], q.shape[1], CHUNK_SIZE, cu_seqlens)
    c = _chunks(layout, q, k, v, beta, g, p, scale)
    x, states, final, _ = _walk(layout, c, initial_state)
    o = c.decay.pairs(c.q, c.write_key) @ x
    o += c.decay.read(c.q) @ states
    return layout.join(o, v.dtype), final


def chunk_gated_delta_rule_bwd_torch(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    beta: torch.Tensor,
    g: torch.Tensor | None,
    p: torch.Tensor | None,
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
    torch.Tensor | None,
    torch.Tensor | None,
    torch.Tensor,
]:
    """Gradients of q, k, v, beta, g, p and the initial states."""
    layout = ChunkLayout(q.shape[0], q.shape[1], CHUNK_SIZE, cu_seqlens)
    c = _chunks(layout, q, k, v, beta, g, p, scale)
    decay = c.decay
    x, states, _, erase = _walk(layout, c, initial_state)
    do_ = layout.split(do, x.dtype)

    # In reverse the roles of reading and writing are exchanged: dx = A^T do - (-kappa_write) dS.
    dx = decay.pairs(c.q, c.write_key).transpose(-1, -2) @ do_
    dread = decay.read(c.q).transpose(-1, -2) @ do_
    dx, dstates, dinitial_state = layout.correct(
        dx, -decay.write(c.write_key), -erase, dread, decay.total, dfinal_state, reverse=True
    )
    dv = c.solve_transposed(dx)

    dq, dkappa = decay.pairs_grad(c.q, c.write_key, (do_ @ x.transpose(-1, -2)).tril_())
    dq += decay.read_grad(c.q, do_ @ states.transpose(-1, -2))
    derase, dkappa_erased = decay.pairs_grad(
        c.erase_key, c.write_key, (dv @ x.transpose(-1, -2)).tril_(-1).neg_(), c.before
    )
    derase += decay.read_grad(c.erase_key, (dv @ states.transpose(-1, -2)).neg_(), c.before)
    dkappa += dkappa_erased
    dkappa += decay.write_grad(c.write_key, x @ dstates.transpose(-1, -2))
    decay.total_grad(states, dstates)

    dbeta = (dkappa * c.k).sum(-1, keepdim=True)
    dk = dkappa * c.beta if p is not None else (dkappa * c.beta).add_(derase)
    dg_ = decay.gradient()
    dg = None if g is None or dg_ is None else layout.join(dg_, g.dtype).view(g.shape)
    return (
        ungroup(layout.join(dq.mul_(scale), dq.dtype), q),
        ungroup(layout.join(dk, dk.dtype), k),
        layout.join(dv, v.dtype),
        layout.join(dbeta, beta.dtype).squeeze(-1),
        dg,
        None if p is None else ungroup(layout.join(derase, derase.dtype), p),
        dinitial_state,
    )


def _chunks(
    layout: ChunkLayout,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    beta: torch.Tensor,
    g: torch.Tensor | None,
    p: torch.Tensor | None,
    scale: float,
) -> _Chunks:
    dtype = sum_dtype(q)
    groups = v.shape[2] // q.shape[2]

    def split(x: torch.Tensor) -> torch.Tensor:
        x = layout.split(x.unsqueeze(-1) if x.dim() == 3 else x, dtype)
        return x.repeat_interleave(groups, 1) if groups > 1 and x.shape[1] != v.shape[2] else x

    q_, k_, v_, beta_ = split(q).mul_(scale), split(k), split(v), split(beta)
    decay = chunk_decay(None if g is None else split(g))
    write_key, erase_key = k_ * beta_, k_ if p is None else split(p)
    pairs = decay.pairs(erase_key, write_key, p is not None)
    return _Chunks(q_, k_, v_, beta_, write_key, erase_key, decay, pairs, p is not None)


def _walk(
    layout: ChunkLayout, c: _Chunks, initial_state: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """X of all chunks, the state before each, the final states, and (I + P)^-1 P_read."""
    erase = c.solve(c.decay.read(c.erase_key, c.before))
    write = c.decay.write(c.write_key)
    return *layout.correct(c.solve(c.v), erase, write, None, c.decay.total, initial_state), erase
