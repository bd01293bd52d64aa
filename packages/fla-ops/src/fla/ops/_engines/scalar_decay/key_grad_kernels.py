"""Triton kernels for the gradients of queries, keys and log decays: see ``kernels.py``."""

import triton
import triton.language as tl

from fla.ops._engines.scalar_decay.kernels import pair_decays
from fla.ops._shared.chunk_kernels import decay_of_steps, locate_chunk, span_sums, step_decays, sums_before


@triton.jit
def decay_grad(b_between, b_read, b_written, total, o_i, o_j, DTYPE: tl.constexpr, PRECISION: tl.constexpr):
    """The gradient of each step's log decay, from those of the spans that may hold the step.

    Spans lie between steps j and i (0 unless j < i), up to each step that reads the state, after each step that writes
    to it, and over the whole chunk.
    """
    if DTYPE == tl.float32:
        b_from_t_on = span_sums(o_i <= o_j, b_between, DTYPE, PRECISION)
        b_dg = tl.sum(tl.where(o_i > o_j, b_from_t_on, 0.0), 1)
        b_dg += tl.cumsum(b_read, 0, reverse=True) + sums_before(b_written, o_i, o_j) + total
    else:
        # Spans that reach t, less those that end before it: float32 keeps enough of the difference for 16-bit operands.
        b_later = tl.sum(b_between, 1) - tl.sum(b_between, 0) + b_read
        b_dg = tl.cumsum(b_later, 0, reverse=True) + (tl.cumsum(b_written, 0) - b_written) + total
    return b_dg


@triton.jit(do_not_specialize=["T"])
def scalar_decay_key_bwd_kernel(
    q,  # [B, T, H, K]
    k,  # [B, T, H, K]
    v,  # [B, T, HV, V]
    g,  # [B, T, HV] or [HV], as DECAY says: log decays; never read where it is 0
    w,  # [B, T, HV], or None
    states,  # [M, HV, K, V]: before each chunk
    do,  # [B, T, HV, V]
    dstates,  # [M, HV, K, V]: after each chunk
    dq,  # [B, T, HV / HEADS, K]
    dk,  # [B, T, HV / HEADS, K]
    dg,  # [blocks of K, B, T, HV], empty unless DECAY is 2
    cu_seqlens,  # [N + 1], or None
    sequence,  # [M], or None
    first_chunk,  # [N + 1], or None
    scale,
    T,
    stride,  # elements from block to block in dg
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

    They are ``[B, T, HV / HEADS, K]``. The part of this block of K in that of g by step is ``dg[block, B, T, HV]``.
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

    # Queries and keys that the heads share, and their scores
    row_q = first * H + i_part * HEADS // (HV // H)
    o_x, m_x = o_i * (H * K) + o_k[None, :], m_c[:, None] & m_k[None, :]
    b_k = tl.load(k + row_q * K + o_x, mask=m_x, other=0.0)
    b_q = tl.load(q + row_q * K + o_x, mask=m_x, other=0.0)
    if DECAY == 2:
        b_a = tl.where(o_i > o_j, tl.dot(b_q, tl.trans(b_k), input_precision=PRECISION) * scale, 0.0)
    # Sums over the heads
    b_dq = tl.zeros([C, BK], dtype=tl.float32)
    b_dk = tl.zeros([C, BK], dtype=tl.float32)
    b_all = tl.zeros([C, C], dtype=tl.float32)
    # Fetch decays and weights a head ahead
    p_g = g + i_part * HEADS
    if DECAY == 2:
        p_g += first * HV
    if DECAY != 0:
        b_g_ahead = decay_of_steps(p_g, o_c, m_c, HV, DECAY)
    if WEIGHTED:
        p_w = w + first * HV + i_part * HEADS + o_c * HV
        b_w_ahead = tl.load(p_w, mask=m_c, other=0.0)
    for i in range(0, HEADS):
        # Decays and weights of one head
        row_v = first * HV + i_part * HEADS + i
        i_state = (i_c.to(tl.int64) * HV + i_part * HEADS + i) * K * V
        i_next = tl.minimum(i + 1, HEADS - 1)
        if DECAY != 0:
            b_g = b_g_ahead
            b_g_ahead = decay_of_steps(p_g + i_next, o_c, m_c, HV, DECAY)
        b_w = tl.full([C], 1.0, dtype=tl.float32)
        if WEIGHTED:
            b_w = b_w_ahead.to(tl.float32)
            b_w_ahead = tl.load(p_w + i_next, mask=m_c, other=0.0)
        b_sum, b_suf = b_w, b_w
        if DECAY != 0:
            b_sum, b_pre, b_suf, b_total = step_decays(p_g + i, b_g, o_c, left, C, HV, DECAY, DTYPE)
            b_suf *= b_w

        # Loop over V: the gradient of the scores, and what goes through the states
        b_pairs = tl.zeros([C, C], dtype=tl.float32)
        b_dread = tl.zeros([C], dtype=tl.float32)
        b_dwrite = tl.zeros([C], dtype=tl.float32)
        b_dtotal = tl.zeros([BK], dtype=tl.float32)
        for i_v in range(0, tl.cdiv(V, BV)):
            o_v = i_v * BV + tl.arange(0, BV)
            m_v = o_v < V
            o_y, m_y = o_i * (HV * V) + o_v[None, :], m_c[:, None] & m_v[None, :]
            o_st, m_st = o_k[None, :] * V + o_v[:, None], m_v[:, None] & m_k[None, :]
            b_do = tl.load(do + row_v * V + o_y, mask=m_y, other=0.0)
            b_v = tl.load(v + row_v * V + o_y, mask=m_y, other=0.0)
            b_st = tl.load(states + i_state + o_st, mask=m_st, other=0.0)
            b_dst = tl.load(dstates + i_state + o_st, mask=m_st, other=0.0)
            # Use each product before the next one, so that few are alive at a time. The sum of products comes first: in
            # a pipelined loop nothing else waits for it before its operands are overwritten.
            b_pairs += tl.dot(b_do, tl.trans(b_v), input_precision=PRECISION)
            if DECAY == 2:
                b_dtotal += tl.sum(b_st.to(tl.float32) * b_dst.to(tl.float32), 0)
                b_dread += tl.sum(b_do * tl.dot(b_q, tl.trans(b_st), input_precision=PRECISION), 1)
                b_dwrite += tl.sum(b_v * tl.dot(b_k, tl.trans(b_dst), input_precision=PRECISION), 1)
            b_dx = tl.dot(b_do, b_st, input_precision=PRECISION)
            b_dq += b_dx * b_pre[:, None] if DECAY != 0 else b_dx
            b_dx = tl.dot(b_v, b_dst, input_precision=PRECISION)
            b_dk += b_dx * b_suf[:, None] if WEIGHTED or DECAY != 0 else b_dx
        # Decay the pairs, and from them take the gradient of the decay
        b_pairs *= pair_decays(p_g + i, b_sum, o_i, o_j, o_c, left, HV, DECAY, False, DTYPE, PRECISION)
        if WEIGHTED:
            b_pairs *= b_w[None, :]
        if DECAY == 2:
            b_dg = decay_grad(
                b_pairs * b_a,
                b_dread * b_pre * scale,
                b_dwrite * b_suf,
                b_total * tl.sum(b_dtotal, 0),
                o_i,
                o_j,
                DTYPE,
                PRECISION,
            )
            tl.store(dg + i_k.to(tl.int64) * stride + row_v + o_c * HV, b_dg, mask=m_c)
        b_all += b_pairs
    # Multiply the pairs, summed over the heads, once with the keys that the heads share
    b_all = (b_all * scale).to(DTYPE)
    b_dq = b_dq * scale + tl.dot(b_all, b_k, input_precision=PRECISION)
    b_dk += tl.dot(tl.trans(b_all), b_q, input_precision=PRECISION)

    # Store the sums
    o_dx = (first * (HV // HEADS) + i_part) * K + o_i * (HV // HEADS * K) + o_k[None, :]
    tl.store(dq + o_dx, b_dq.to(dq.dtype.element_ty), mask=m_x)
    tl.store(dk + o_dx, b_dk.to(dk.dtype.element_ty), mask=m_x)
