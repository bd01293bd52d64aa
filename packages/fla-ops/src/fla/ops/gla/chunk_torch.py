r"""Gated linear attention in chunks, in plain PyTorch matmuls.

A chunk of C steps reads the state S at its start and adds to it:

    o_i = (q_i e^{pre_i}) S + sum_{j <= i} A_ij v_j        S' = e^{total} S + sum_j (k_j e^{suf_j}) v_j^T

where pre_i sums the log decays of the chunk up to and with step i, suf_j those after step j, total all of
them. The scores A_ij = sum_d q_id k_jd e^{g_{j+1} + ... + g_i} are found by halving: the chunk's second half
attends to its first half through the boundary between the two, where both exponents are sums of decays and
so never positive, and the same holds within each half. Halving ends at blocks that decay so little that
e^{pre_i} and e^{-pre_j} can stand alone; under the strongest decays those are single steps, under common
ones the whole chunk. pre and suf of a block follow from those of its halves.
"""

from __future__ import annotations

import torch

from fla.ops._arguments import sum_dtype
from fla.ops._chunks_torch import ChunkLayout

CHUNK_SIZE = 64

#: A block is mild when no channel decays by more than this, in natural-log units, from its start to its end.
MILD_DECAY = 8.0


def chunk_gla_fwd_torch(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs ``[B, T, H, V]`` and final states ``[N, H, K, V]``."""
    dtype = sum_dtype(q)
    layout = ChunkLayout(q.shape[0], q.shape[1], CHUNK_SIZE, cu_seqlens)
    q_, k_, v_, g_ = (layout.split(x, dtype) for x in (q, k, v, g))
    q_ = q_ * scale
    half = _mild_block(g_)
    pre, suf, rise = _sums(g_, half)

    q_mild, k_mild = q_ * rise.exp(), k_ * rise.neg().exp()
    scores = _blocks(q_mild, half) @ _blocks(k_mild, half).transpose(-1, -2)
    o = (scores.tril_() @ _blocks(v_, half)).view(v_.shape)
    while half < CHUNK_SIZE:
        q_late = _late(q_, half) * _late(pre, half).exp()
        k_early = _early(k_, half) * _early(suf, half).exp()
        _late(o, half).add_((q_late @ k_early.transpose(-1, -2)) @ _early(v_, half))
        _merge(pre, suf, half)
        half *= 2
    written = (k_ * suf.exp()).transpose(-1, -2) @ v_
    states, final = layout.scan(written, pre[..., -1, :].exp(), initial_state)
    o += (q_ * pre.exp()) @ states
    return layout.join(o, v.dtype), final


def chunk_gla_bwd_torch(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    initial_state: torch.Tensor | None,
    do: torch.Tensor,
    dfinal_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of q, k, v, g and the initial states."""
    dtype = sum_dtype(q)
    layout = ChunkLayout(q.shape[0], q.shape[1], CHUNK_SIZE, cu_seqlens)
    q_, k_, v_, g_, do_ = (layout.split(x, dtype) for x in (q, k, v, g, do))
    q_ = q_ * scale
    mild = half = _mild_block(g_)
    pre, suf, rise = _sums(g_, mild)

    e_rise, e_fall = rise.exp(), rise.neg().exp()
    q_mild, k_mild, do_mild = (_blocks(x, mild) for x in (q_ * e_rise, k_ * e_fall, do_))
    scores = (q_mild @ k_mild.transpose(-1, -2)).tril_()
    dscores = (do_mild @ _blocks(v_, mild).transpose(-1, -2)).tril_()
    dv = (scores.transpose(-1, -2) @ do_mild).view(v_.shape)
    dq = (dscores @ k_mild).view(q_.shape).mul_(e_rise)
    dk = (dscores.transpose(-1, -2) @ q_mild).view(k_.shape).mul_(e_fall)
    dmild = q_ * dq - k_ * dk if mild > 1 else torch.zeros_like(g_)
    dhalves: list[tuple[torch.Tensor, torch.Tensor]] = []
    while half < CHUNK_SIZE:
        e_late, e_early = _late(pre, half).exp(), _early(suf, half).exp()
        q_late, k_early = _late(q_, half) * e_late, _early(k_, half) * e_early
        scores = q_late @ k_early.transpose(-1, -2)
        dscores = _late(do_, half) @ _early(v_, half).transpose(-1, -2)
        dq_late, dk_early = dscores @ k_early, dscores.transpose(-1, -2) @ q_late
        _late(dq, half).addcmul_(dq_late, e_late)
        _early(dk, half).addcmul_(dk_early, e_early)
        _early(dv, half).add_(scores.transpose(-1, -2) @ _late(do_, half))
        dhalves.append((dq_late.mul_(q_late), dk_early.mul_(k_early)))
        _merge(pre, suf, half)
        half *= 2

    e_pre, e_suf, decay = pre.exp(), suf.exp(), pre[..., -1, :].exp()
    k_state = k_ * e_suf
    states, _ = layout.scan(k_state.transpose(-1, -2) @ v_, decay, initial_state)
    dread = (q_ * e_pre).transpose(-1, -2) @ do_
    dstates, dinitial_state = layout.scan(dread, decay, dfinal_state, reverse=True)
    dq_state = (do_ @ states.transpose(-1, -2)).mul_(e_pre)
    dk_state = (v_ @ dstates.transpose(-1, -2)).mul_(e_suf)
    dv += k_state @ dstates
    dpre, dsuf = dq_state * q_, dk_state * k_
    dpre[..., -1, :].addcmul_(decay, (states * dstates).sum(-1))
    dq += dq_state
    dk += dk_state

    dg = _dsums(dpre, dsuf, dhalves, dmild, mild)
    gradients = (dq.mul_(scale), dk, dv, dg)
    dq, dk, dv, dg = (layout.join(d, x.dtype) for d, x in zip(gradients, (q, k, v, g), strict=True))
    return dq, dk, dv, dg, dinitial_state


def _early(x: torch.Tensor, half: int) -> torch.Tensor:
    """The first half of every block of ``2 * half`` rows."""
    return x.view(*x.shape[:2], -1, 2, half, x.shape[-1])[..., 0, :, :]


def _late(x: torch.Tensor, half: int) -> torch.Tensor:
    """The second half of every block of ``2 * half`` rows."""
    return x.view(*x.shape[:2], -1, 2, half, x.shape[-1])[..., 1, :, :]


def _blocks(x: torch.Tensor, size: int) -> torch.Tensor:
    """``[M, H, C, D]`` -> ``[M, H, C / size, size, D]``."""
    return x.view(*x.shape[:2], -1, size, x.shape[-1])


def _mild_block(g: torch.Tensor) -> int:
    """The largest power-of-two block size at which every block is mild; 1 if none is."""
    decay, size = g.neg(), 1
    while size < CHUNK_SIZE:
        decay = _blocks(decay, 2).sum(-2)
        if not decay.max().item() <= MILD_DECAY:
            break
        size *= 2
    return size


def _sums(g: torch.Tensor, block: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Within blocks, the sums of g up to and with each row, after it, and from the first row (left out) to it."""
    if block == 1:
        return g, torch.zeros_like(g), torch.zeros_like(g)
    pre = _blocks(g, block).cumsum(-2)
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
        _late(dpre, half).add_(dlate)
        _early(dsuf, half).add_(dearly)
    dpre += dmild
    if block == 1:
        return dpre
    before = _blocks(dsuf, block).cumsum(-2) - _blocks(dsuf, block)
    after = _blocks(dpre, block).flip(-2).cumsum(-2).flip(-2)
    return (before + after).view(dpre.shape)


def _merge(pre: torch.Tensor, suf: torch.Tensor, half: int) -> None:
    """Extend the sums over blocks of ``half`` rows to blocks of ``2 * half`` rows, in place."""
    total_early = _early(pre, half)[..., -1:, :]
    total_late = _late(pre, half)[..., -1:, :].clone()
    _late(pre, half).add_(total_early)
    _early(suf, half).add_(total_late)


def _split_gradient(dpre: torch.Tensor, dsuf: torch.Tensor, half: int) -> None:
    """The adjoint of :func:`_merge`, in place."""
    dtotal_early = _late(dpre, half).sum(-2)
    dtotal_late = _early(dsuf, half).sum(-2)
    _early(dpre, half)[..., -1, :].add_(dtotal_early)
    _late(dpre, half)[..., -1, :].add_(dtotal_late)
