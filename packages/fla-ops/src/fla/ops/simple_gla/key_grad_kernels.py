"""Triton kernels for the gradients of queries, keys and log decays: see ``chunk_kernels.py``."""

import triton
import triton.language as tl

from fla.ops._chunks_kernels import decay_of_steps, locate_chunk, span_sums, step_decays, sums_before
from fla.ops.simple_gla.chunk_kernels import pair_decays


@triton.jit
def between_grad(b_pairs, o_i, o_j, DTYPE: tl.constexpr, PRECISION: tl.constexpr):
    """The gradient of each step's log decay from that of what lies between j and i, 0 unless j < i."""
    if DTYPE == tl.float32:
        b_from_t_on = span_sums(o_i <= o_j, b_pairs, DTYPE, PRECISION)
        b_dg = tl.sum(tl.where(o_i > o_j, b_from_t_on, 0.0), 1)
    else:
        # Spans that reach t, less those that end before it: float32 keeps enough of the difference for half precision.
        b_dg = tl.cumsum(tl.sum(b_pairs, 1) - tl.sum(b_pairs, 0), 0, reverse=True)
    return b_dg


@triton.jit(do_not_specialize=["T"])
def key_grad_kernel(
    q,
    k,
    v,
    g,
    w,
    states,
    do,
    dstates,
    dq,
    dk,
    cu_seqlens,
    sequence,
    first_chunk,
    scale,
    T,
    H: tl.constexpr,
    HV: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    C: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    HEADS: tl.constexpr,
    DECAY: tl.constexpr,
    WEIGHTED: tl.constexpr,
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Gradients of a block of q and k for one chunk, summed over ``HEADS`` of the value heads that share them.

    They are ``[B, T, HV / HEADS, K]``.
    """
    i_ck, i_part = tl.program_id(0), tl.program_id(1)
    i_c, i_k = i_ck // tl.cdiv(K, BK), i_ck % tl.cdiv(K, BK)
    first, left = locate_chunk(i_c, cu_seqlens, sequence, first_chunk, T, C, PACKED)
    if left <= 0:
        return
    o_c, o_k = tl.arange(0, C), i_k * BK + tl.arange(0, BK)
    o_i, o_j = o_c[:, None], o_c[None, :]
    m_c, m_k = o_c < left, o_k < K
    DTYPE: tl.constexpr = q.dtype.element_ty

    b_dq = tl.zeros([C, BK], dtype=tl.float32)
    b_dk = tl.zeros([C, BK], dtype=tl.float32)
    b_all = tl.zeros([C, C], dtype=tl.float32)
    # What steps have one of is fetched a head ahead.
    p_g = g + i_part * HEADS
    if DECAY == 2:
        p_g += first * HV
    if DECAY != 0:
        b_g_ahead = decay_of_steps(p_g, o_c, m_c, HV, DECAY)
    if WEIGHTED:
        p_w = w + first * HV + i_part * HEADS + o_c * HV
        b_w_ahead = tl.load(p_w, mask=m_c, other=0.0)
    for i in range(0, HEADS):
        row_v = first * HV + i_part * HEADS + i
        i_state = (i_c.to(tl.int64) * HV + i_part * HEADS + i) * K * V
        i_next = tl.minimum(i + 1, HEADS - 1)
        if DECAY != 0:
            b_g = b_g_ahead
            b_g_ahead = decay_of_steps(p_g + i_next, o_c, m_c, HV, DECAY)
        if WEIGHTED:
            b_w = b_w_ahead.to(tl.float32)
            b_w_ahead = tl.load(p_w + i_next, mask=m_c, other=0.0)

        b_pairs = tl.zeros([C, C], dtype=tl.float32)
        b_read = tl.zeros([C, BK], dtype=tl.float32)
        b_write = tl.zeros([C, BK], dtype=tl.float32)
        for i_v in range(0, tl.cdiv(V, BV)):
            o_v = i_v * BV + tl.arange(0, BV)
            m_v = o_v < V
            o_y, m_y = o_i * (HV * V) + o_v[None, :], m_c[:, None] & m_v[None, :]
            o_st, m_st = o_k[None, :] * V + o_v[:, None], m_v[:, None] & m_k[None, :]
            b_do = tl.load(do + row_v * V + o_y, mask=m_y, other=0.0)
            b_v = tl.load(v + row_v * V + o_y, mask=m_y, other=0.0)
            b_st = tl.load(states + i_state + o_st, mask=m_st, other=0.0)
            b_dst = tl.load(dstates + i_state + o_st, mask=m_st, other=0.0)
            b_pairs += tl.dot(b_do, tl.trans(b_v), input_precision=PRECISION)
            b_read += tl.dot(b_do, b_st, input_precision=PRECISION)
            b_write += tl.dot(b_v, b_dst, input_precision=PRECISION)
        b_sum = b_read
        if DECAY != 0:
            b_sum, b_pre, b_suf, _ = step_decays(p_g + i, b_g, o_c, left, C, HV, DECAY, DTYPE)
            b_read *= b_pre[:, None]
            b_write *= b_suf[:, None]
        b_pairs *= pair_decays(p_g + i, b_sum, o_i, o_j, o_c, left, HV, DECAY, False, DTYPE, PRECISION)
        if WEIGHTED:
            b_pairs *= b_w[None, :]
            b_write *= b_w[:, None]
        b_dq += b_read
        b_dk += b_write
        b_all += b_pairs
    # The heads have their keys in common: what pairs of steps give them meets those keys once.
    b_all = (b_all * scale).to(DTYPE)
    row_q = first * H + i_part * HEADS // (HV // H)
    o_x, m_x = o_i * (H * K) + o_k[None, :], m_c[:, None] & m_k[None, :]
    b_k = tl.load(k + row_q * K + o_x, mask=m_x, other=0.0)
    b_q = tl.load(q + row_q * K + o_x, mask=m_x, other=0.0)
    b_dq = b_dq * scale + tl.dot(b_all, b_k, input_precision=PRECISION)
    b_dk += tl.dot(tl.trans(b_all), b_q, input_precision=PRECISION)

    o_dx = (first * (HV // HEADS) + i_part) * K + o_i * (HV // HEADS * K) + o_k[None, :]
    tl.store(dq + o_dx, b_dq.to(dq.dtype.element_ty), mask=m_x)
    tl.store(dk + o_dx, b_dk.to(dk.dtype.element_ty), mask=m_x)


@triton.jit(do_not_specialize=["T"])
def decay_grad_kernel(
    q,
    k,
    v,
    g,
    w,
    states,
    do,
    dstates,
    dg,
    cu_seqlens,
    sequence,
    first_chunk,
    scale,
    T,
    H: tl.constexpr,
    HV: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    C: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    DECAY: tl.constexpr,
    WEIGHTED: tl.constexpr,
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The gradient of the log decays ``g[B, T, HV]`` of one chunk and head.

    What is read of the state decayed by the steps up to the reader, what is written by those after the writer, a pair
    of steps by those between, and the state by all.
    """
    i_c, i_h = tl.program_id(0), tl.program_id(1)
    first, left = locate_chunk(i_c, cu_seqlens, sequence, first_chunk, T, C, PACKED)
    if left <= 0:
        return
    o_c = tl.arange(0, C)
    o_i, o_j = o_c[:, None], o_c[None, :]
    m_c = o_c < left
    row_q, row_v = first * H + i_h // (HV // H), first * HV + i_h
    q += row_q * K
    k += row_q * K
    v += row_v * V
    do += row_v * V
    i_state = (i_c.to(tl.int64) * HV + i_h) * K * V
    states += i_state
    dstates += i_state
    DTYPE: tl.constexpr = q.dtype.element_ty

    b_a = tl.zeros([C, C], dtype=tl.float32)
    b_pairs = tl.zeros([C, C], dtype=tl.float32)
    b_dpre = tl.zeros([C], dtype=tl.float32)
    b_dsuf = tl.zeros([C], dtype=tl.float32)
    b_dtotal = tl.zeros([BV], dtype=tl.float32)
    for i_k in range(0, tl.cdiv(K, BK)):
        o_k = i_k * BK + tl.arange(0, BK)
        m_k = o_k < K
        o_x, m_x = o_i * (H * K) + o_k[None, :], m_c[:, None] & m_k[None, :]
        b_q = tl.load(q + o_x, mask=m_x, other=0.0)
        b_k = tl.load(k + o_x, mask=m_x, other=0.0)
        b_a += tl.dot(b_q, tl.trans(b_k), input_precision=PRECISION)
        for i_v in range(0, tl.cdiv(V, BV)):
            o_v = i_v * BV + tl.arange(0, BV)
            m_v = o_v < V
            o_y, m_y = o_i * (HV * V) + o_v[None, :], m_c[:, None] & m_v[None, :]
            o_s, m_s = o_k[:, None] * V + o_v[None, :], m_k[:, None] & m_v[None, :]
            b_do = tl.load(do + o_y, mask=m_y, other=0.0)
            b_v = tl.load(v + o_y, mask=m_y, other=0.0)
            b_s = tl.load(states + o_s, mask=m_s, other=0.0)
            b_ds = tl.load(dstates + o_s, mask=m_s, other=0.0)
            if i_k == 0:
                b_pairs += tl.dot(b_do, tl.trans(b_v), input_precision=PRECISION)
            b_dpre += tl.sum(b_do * tl.dot(b_q, b_s, input_precision=PRECISION), 1)
            b_dsuf += tl.sum(b_v * tl.dot(b_k, b_ds, input_precision=PRECISION), 1)
            b_dtotal += tl.sum(b_s.to(tl.float32) * b_ds.to(tl.float32), 0)
    b_g = decay_of_steps(g + row_v, o_c, m_c, HV, DECAY)
    b_sum, b_pre, b_suf, b_total = step_decays(g + row_v, b_g, o_c, left, C, HV, DECAY, DTYPE)
    b_pairs *= tl.where(o_i > o_j, b_a, 0.0)
    b_pairs *= pair_decays(g + row_v, b_sum, o_i, o_j, o_c, left, HV, DECAY, False, DTYPE, PRECISION)
    b_dsuf *= b_suf
    if WEIGHTED:
        b_w = tl.load(w + row_v + o_c * HV, mask=m_c, other=0.0).to(tl.float32)
        b_pairs *= b_w[None, :]
        b_dsuf *= b_w
    b_dg = between_grad(b_pairs * scale, o_i, o_j, DTYPE, PRECISION)
    b_dg += tl.cumsum(b_dpre * b_pre * scale, 0, reverse=True)
    b_dg += sums_before(b_dsuf, o_i, o_j) + b_total * tl.sum(b_dtotal, 0)
    tl.store(dg + row_v + o_c * HV, b_dg.to(dg.dtype.element_ty), mask=m_c)
