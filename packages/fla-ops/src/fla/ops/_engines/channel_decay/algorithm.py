r"""Gated linear attention in chunks, in plain PyTorch matmuls.

A chunk of C steps reads the state S at its start and adds to it:

    o_i = (q_i e^{pre_i}) S + sum_{j <= i} A_ij v_j        S' = e^{total} S + sum_j (k_j e^{suf_j}) v_j^T

where pre_i sums the log decays of the chunk up to and with step i, suf_j those after step j, total all of
them. The scores A_ij = sum_d q_id k_jd e^{g_{j+1} + ... + g_i} are found by halving: the chunk's second half
attends to its first half through the boundary between the two, where both exponents are sums of decays and
so never positive, and the same holds within each half. Halving ends at blocks that decay so little that
e^{pre_i} and e^{-pre_j} can stand alone; under the strongest decays those are single steps, under common
ones the whole chunk. pre and suf of a block follow from those of its halves.

With a bonus u (RWKV-6) a step reads the state before it writes: o_i has pre_{i-1} in place of pre_i, the decays of A_ij
end before i, and A_ii = sum_d q_id u_d k_id.

Where the values decay instead of the keys, the loss sum_i do_i.o_i is that of gated linear attention with do in the
place of q, the decaying values in that of k, the keys in that of v, and q in that of do. So each of its results is one
of these here; see value_decay.py.
"""

from __future__ import annotations

import torch

from fla.ops._shared.arguments import sum_dtype
from fla.ops._shared.causality import keeps_causality
from fla.ops._shared.chunks import ChunkLayout
from fla.ops._shared.decay import blocks, early, late, mild_block

CHUNK_SIZE = 64


@keeps_causality(("k", "v"), ("g",))
def chunk_gla_fwd_torch(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    u: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs ``[B, T, H, V]`` and final states ``[N, H, K, V]``."""
    dtype = sum_dtype(q)
    layout = ChunkLayout(q.shape[0], q.shape[1], CHUNK_SIZE, cu_seqlens)
    q_, k_, v_, g_ = (layout.split(x, dtype) for x in (q, k, v, g))
    half, bonus = mild_block(g_), u is not None
    if half == CHUNK_SIZE and not bonus:
        o, final = _mild_chunks_fwd(layout, q_, k_, v_, g_, initial_state)
        return layout.join(o.mul_(scale), v.dtype), final
    q_ = q_ * scale
    pre, suf, rise = _sums(g_, half)

    q_mild, k_mild = q_ * _read(rise, half, bonus).exp(), k_ * rise.neg().exp()
    scores = blocks(q_mild, half) @ blocks(k_mild, half).transpose(-1, -2)
    o = (scores.tril_(-1 if bonus else 0) @ blocks(v_, half)).view(v_.shape)
    if u is not None:
        o += (q_ * u.to(dtype)[:, None] * k_).sum(-1, keepdim=True) * v_
    while half < CHUNK_SIZE:
        q_late = late(q_, half) * late(_read(pre, half, bonus), half).exp()
        k_early = early(k_, half) * early(suf, half).exp()
        late(o, half).add_((q_late @ k_early.transpose(-1, -2)) @ early(v_, half))
        _merge(pre, suf, half)
        half *= 2
    written = (k_ * suf.exp()).transpose(-1, -2) @ v_
    states, final = layout.scan(written, pre[..., -1, :].exp(), initial_state)
    o += (q_ * _read(pre, CHUNK_SIZE, bonus).exp()) @ states
    return layout.join(o, v.dtype), final


def _mild_chunks_fwd(
    layout: ChunkLayout,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    initial_state: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs and final states where no chunk need be halved: two exponentials serve for everything."""
    pre = g.cumsum(-2)
    rise = (pre - pre[..., :1, :]).exp_()
    q_mild, k_mild = q * rise, k / rise
    o = (q_mild @ k_mild.transpose(-1, -2)).tril_() @ v
    written = (k_mild.transpose(-1, -2) @ v).mul_(rise[..., -1, :, None])
    states, final = layout.scan(written, pre[..., -1, :].exp(), initial_state)
    return o.add_(q_mild @ states.mul_(g[..., 0, :, None].exp())), final


def chunk_gla_bwd_torch(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    u: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    do: torch.Tensor,
    dfinal_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """Gradients of q, k, v, g, u and the initial states."""
    dtype = sum_dtype(q)
    layout = ChunkLayout(q.shape[0], q.shape[1], CHUNK_SIZE, cu_seqlens)
    q_, k_, v_, g_, do_ = (layout.split(x, dtype) for x in (q, k, v, g, do))
    q_ = q_ * scale
    mild = half = mild_block(g_)
    pre, suf, rise = _sums(g_, mild)
    bonus = u is not None

    e_rise, e_fall = _read(rise, mild, bonus).exp(), rise.neg().exp()
    q_mild, k_mild, do_mild = (blocks(x, mild) for x in (q_ * e_rise, k_ * e_fall, do_))
    highest = -1 if bonus else 0
    scores = (q_mild @ k_mild.transpose(-1, -2)).tril_(highest)
    dscores = (do_mild @ blocks(v_, mild).transpose(-1, -2)).tril_(highest)
    dv = (scores.transpose(-1, -2) @ do_mild).view(v_.shape)
    dq = (dscores @ k_mild).view(q_.shape).mul_(e_rise)
    dk = (dscores.transpose(-1, -2) @ q_mild).view(k_.shape).mul_(e_fall)
    dmild = _dread(q_ * dq, mild, bonus) - k_ * dk if mild > 1 else torch.zeros_like(g_)
    dhalves: list[tuple[torch.Tensor, torch.Tensor]] = []
    while half < CHUNK_SIZE:
        e_late, e_early = late(_read(pre, half, bonus), half).exp(), early(suf, half).exp()
        q_late, k_early = late(q_, half) * e_late, early(k_, half) * e_early
        scores = q_late @ k_early.transpose(-1, -2)
        dscores = late(do_, half) @ early(v_, half).transpose(-1, -2)
        dq_late, dk_early = dscores @ k_early, dscores.transpose(-1, -2) @ q_late
        late(dq, half).addcmul_(dq_late, e_late)
        early(dk, half).addcmul_(dk_early, e_early)
        early(dv, half).add_(scores.transpose(-1, -2) @ late(do_, half))
        dhalves.append((_dread(dq_late.mul_(q_late), half, bonus), dk_early.mul_(k_early)))
        _merge(pre, suf, half)
        half *= 2

    e_pre, e_suf, decay = _read(pre, CHUNK_SIZE, bonus).exp(), suf.exp(), pre[..., -1, :].exp()
    k_state = k_ * e_suf
    states, _ = layout.scan(k_state.transpose(-1, -2) @ v_, decay, initial_state)
    dread = (q_ * e_pre).transpose(-1, -2) @ do_
    dstates, dinitial_state = layout.scan(dread, decay, dfinal_state, reverse=True)
    dq_state = (do_ @ states.transpose(-1, -2)).mul_(e_pre)
    dk_state = (v_ @ dstates.transpose(-1, -2)).mul_(e_suf)
    dv += k_state @ dstates
    dpre, dsuf = _dread(dq_state * q_, CHUNK_SIZE, bonus), dk_state * k_
    dpre[..., -1, :].addcmul_(decay, (states * dstates).sum(-1))
    dq += dq_state
    dk += dk_state
    du = None
    if u is not None:
        u_, ddiagonal = u.to(dtype)[:, None], (do_ * v_).sum(-1, keepdim=True)
        dv += (q_ * u_ * k_).sum(-1, keepdim=True) * do_
        du = (ddiagonal * q_ * k_).sum((0, 2)).to(u.dtype)
        dq += ddiagonal * u_ * k_
        dk += ddiagonal * u_ * q_

    dg = _dsums(dpre, dsuf, dhalves, dmild, mild)
    gradients = (dq.mul_(scale), dk, dv, dg)
    dq, dk, dv, dg = (layout.join(d, x.dtype) for d, x in zip(gradients, (q, k, v, g), strict=True))
    return dq, dk, dv, dg, du, dinitial_state


@keeps_causality(("k", "v"), ("g",))
def value_decay_fwd_torch(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs ``[B, T, H, V]`` in the dtype of sums and final states ``[N, H, V, K]`` where the values decay."""
    dtype = sum_dtype(q)
    layout = ChunkLayout(q.shape[0], q.shape[1], CHUNK_SIZE, cu_seqlens)
    q_, k_, v_, g_ = (layout.split(x, dtype) for x in (q, k, v, g))
    q_ = q_ * scale
    half = mild_block(g_)
    pre, suf, rise = _sums(g_, half)

    scores = blocks(q_, half) @ blocks(k_, half).transpose(-1, -2)
    o = (scores.tril_() @ blocks(v_ * rise.neg().exp(), half)).view(v_.shape).mul_(rise.exp())
    while half < CHUNK_SIZE:
        scores = late(q_, half) @ early(k_, half).transpose(-1, -2)
        read = scores @ (early(v_, half) * early(suf, half).exp())
        late(o, half).addcmul_(read, late(pre, half).exp())
        _merge(pre, suf, half)
        half *= 2
    written = (v_ * suf.exp()).transpose(-1, -2) @ k_
    states, final = layout.scan(written, pre[..., -1, :].exp(), initial_state)
    o.addcmul_(q_ @ states.transpose(-1, -2), pre.exp())
    return layout.join(o, dtype), final


def _read(sums: torch.Tensor, block: int, bonus: bool) -> torch.Tensor:
    """What decays between the start of each block and its queries: with a bonus, not yet the step's own decay."""
    if not bonus:
        return sums
    rows = blocks(sums, block)
    return torch.cat([torch.zeros_like(rows[..., :1, :]), rows[..., :-1, :]], -2).view(sums.shape)


def _dread(gradient: torch.Tensor, block: int, bonus: bool) -> torch.Tensor:
    """The adjoint of :func:`_read`, on blocks in any arrangement."""
    if not bonus:
        return gradient
    rows = gradient.unflatten(-2, (-1, block))
    return torch.cat([rows[..., 1:, :], torch.zeros_like(rows[..., :1, :])], -2).view(gradient.shape)


def _sums(g: torch.Tensor, block: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Within blocks, the sums of g up to and with each row, after it, and from the first row (left out) to it."""
    if block == 1:
        return g, torch.zeros_like(g), torch.zeros_like(g)
    pre = blocks(g, block).cumsum(-2)
    suf, rise = pre[..., -1:, :] - pre, pre - pre[..., :1, :]
    return pre.view(g.shape), suf.view(g.shape), rise.view(g.shape)


def _dsums(
    dpre: torch.Tensor,
    dsuf: torch.Tensor,
    dhalves: list[tuple[torch.Tensor, torch.Tensor]],
    dmild: torch.Tensor,
    block: int,
) -> torch.Tensor:
    """Gradient of g from those of its sums over the chunk, over the halves at each level, and in mild blocks."""
    for level in reversed(range(len(dhalves))):
        half = block << level
        _split_gradient(dpre, dsuf, half)
        dlate, dearly = dhalves[level]
        late(dpre, half).add_(dlate)
        early(dsuf, half).add_(dearly)
    dpre += dmild
    if block == 1:
        return dpre
    before = blocks(dsuf, block).cumsum(-2) - blocks(dsuf, block)
    after = blocks(dpre, block).flip(-2).cumsum(-2).flip(-2)
    return (before + after).view(dpre.shape)


def _merge(pre: torch.Tensor, suf: torch.Tensor, half: int) -> None:
    """Extend the sums over blocks of ``half`` rows to blocks of ``2 * half`` rows, in place."""
    total_early = early(pre, half)[..., -1:, :]
    total_late = late(pre, half)[..., -1:, :].clone()
    late(pre, half).add_(total_early)
    early(suf, half).add_(total_late)


def _split_gradient(dpre: torch.Tensor, dsuf: torch.Tensor, half: int) -> None:
    """The adjoint of :func:`_merge`, in place."""
    dtotal_early = late(dpre, half).sum(-2)
    dtotal_late = early(dsuf, half).sum(-2)
    early(dpre, half)[..., -1, :].add_(dtotal_early)
    late(dpre, half)[..., -1, :].add_(dtotal_late)
