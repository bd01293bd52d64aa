"""The Triton kernel for the gradients of queries, keys and log decays: see ``chunk_kernels.py``."""

import triton
import triton.language as tl

from fla.ops._chunks_kernels import locate_chunk, span_sums, sums_before
from fla.ops.simple_gla.chunk_kernels import pair_decays, step_decays


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
    dg,
    cu_seqlens,
    sequence,
    first_chunk,
    scale,
    T,
    dg_stride,
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

    They are ``[B, T, HV / HEADS, K]``. What this block of K adds to that of g is ``dg[block, B, T, HV]``.
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
    p_x = (first * H + i_part * HEADS // (HV // H)) * K + o_i * (H * K) + o_k[None, :]
    p_xt = (first * H + i_part * HEADS // (HV // H)) * K + o_j * (H * K) + o_k[:, None]
    m_x, m_xt = m_c[:, None] & m_k[None, :], m_k[:, None] & m_c[None, :]

    b_a = tl.zeros([C, C], dtype=tl.float32)
    if DECAY == 2:
        b_q = tl.load(q + p_x, mask=m_x, other=0.0)
        b_kt = tl.load(k + p_xt, mask=m_xt, other=0.0)
        b_a += tl.dot(b_q, b_kt, input_precision=PRECISION)
    b_dq = tl.zeros([C, BK], dtype=tl.float32)
    b_dk = tl.zeros([C, BK], dtype=tl.float32)
    for i in range(0, HEADS):
        i_h = i_part * HEADS + i
        row_v = first * HV + i_h
        i_state = (i_c.to(tl.int64) * HV + i_h) * K * V
        p_g = g + row_v if DECAY == 2 else g + i_h
        b_w = tl.full([C], 1.0, dtype=tl.float32)
        if WEIGHTED:
            b_w = tl.load(w + row_v + o_c * HV, mask=m_c, other=0.0).to(tl.float32)
        b_sum = b_w
        if DECAY != 0:
            b_sum, b_pre, b_suf, b_total = step_decays(p_g, o_c, left, C, HV, DECAY, DTYPE)

        # Several walks over V, so that few accumulators are alive at a time.
        b_pairs = tl.zeros([C, C], dtype=tl.float32)
        for i_v in range(0, tl.cdiv(V, BV)):
            o_v = i_v * BV + tl.arange(0, BV)
            m_v = o_v < V
            b_do = tl.load(do + row_v * V + o_i * (HV * V) + o_v[None, :], mask=m_c[:, None] & m_v[None, :], other=0.0)
            b_vt = tl.load(v + row_v * V + o_j * (HV * V) + o_v[:, None], mask=m_v[:, None] & m_c[None, :], other=0.0)
            b_pairs += tl.dot(b_do, b_vt, input_precision=PRECISION)
        b_pairs *= pair_decays(p_g, b_sum, o_i, o_j, o_c, left, HV, DECAY, False, DTYPE, PRECISION)
        if WEIGHTED:
            b_pairs *= b_w[None, :]
        b_k = tl.load(k + p_x, mask=m_x, other=0.0)
        b_dq += tl.dot((b_pairs * scale).to(DTYPE), b_k, input_precision=PRECISION)
        if DECAY == 2:
            b_dg = between_grad(b_pairs * tl.where(o_i > o_j, b_a, 0.0) * scale, o_i, o_j, DTYPE, PRECISION)

        b_pairs = tl.zeros([C, C], dtype=tl.float32)
        for i_v in range(0, tl.cdiv(V, BV)):
            o_v = i_v * BV + tl.arange(0, BV)
            m_v = o_v < V
            b_v = tl.load(v + row_v * V + o_i * (HV * V) + o_v[None, :], mask=m_c[:, None] & m_v[None, :], other=0.0)
            b_dot = tl.load(do + row_v * V + o_j * (HV * V) + o_v[:, None], mask=m_v[:, None] & m_c[None, :], other=0.0)
            b_pairs += tl.dot(b_v, b_dot, input_precision=PRECISION)
        b_pairs *= pair_decays(p_g, b_sum, o_i, o_j, o_c, left, HV, DECAY, True, DTYPE, PRECISION)
        if WEIGHTED:
            b_pairs *= b_w[:, None]
        b_q = tl.load(q + p_x, mask=m_x, other=0.0)
        b_dk += tl.dot((b_pairs * scale).to(DTYPE), b_q, input_precision=PRECISION)

        b_dx = tl.zeros([C, BK], dtype=tl.float32)
        for i_v in range(0, tl.cdiv(V, BV)):
            o_v = i_v * BV + tl.arange(0, BV)
            m_v = o_v < V
            b_do = tl.load(do + row_v * V + o_i * (HV * V) + o_v[None, :], mask=m_c[:, None] & m_v[None, :], other=0.0)
            p_s = states + i_state + o_k[None, :] * V + o_v[:, None]
            b_st = tl.load(p_s, mask=m_v[:, None] & m_k[None, :], other=0.0)
            b_dx += tl.dot(b_do, b_st, input_precision=PRECISION)
        b_dx *= scale
        if DECAY != 0:
            b_dx *= b_pre[:, None]
        b_dq += b_dx
        if DECAY == 2:
            b_dpre = tl.sum(tl.load(q + p_x, mask=m_x, other=0.0).to(tl.float32) * b_dx, 1)
            b_dg += tl.cumsum(b_dpre, 0, reverse=True)

        b_dx = tl.zeros([C, BK], dtype=tl.float32)
        b_sds = tl.zeros([BK], dtype=tl.float32)
        for i_v in range(0, tl.cdiv(V, BV)):
            o_v = i_v * BV + tl.arange(0, BV)
            m_v = o_v < V
            b_v = tl.load(v + row_v * V + o_i * (HV * V) + o_v[None, :], mask=m_c[:, None] & m_v[None, :], other=0.0)
            p_s, m_s = i_state + o_k[None, :] * V + o_v[:, None], m_v[:, None] & m_k[None, :]
            b_dst = tl.load(dstates + p_s, mask=m_s, other=0.0)
            b_dx += tl.dot(b_v, b_dst, input_precision=PRECISION)
            if DECAY == 2:
                b_st = tl.load(states + p_s, mask=m_s, other=0.0)
                b_sds += tl.sum(b_st.to(tl.float32) * b_dst.to(tl.float32), 0)
        if DECAY != 0:
            b_dx *= (b_suf * b_w)[:, None]
        elif WEIGHTED:
            b_dx *= b_w[:, None]
        b_dk += b_dx
        if DECAY == 2:
            b_dsuf = tl.sum(tl.load(k + p_x, mask=m_x, other=0.0).to(tl.float32) * b_dx, 1)
            b_dg += sums_before(b_dsuf, o_i, o_j) + b_total * tl.sum(b_sds, 0)
            tl.store(dg + i_k * dg_stride + row_v + o_c * HV, b_dg, mask=m_c)

    o_dx = (first * (HV // HEADS) + i_part) * K + o_i * (HV // HEADS * K) + o_k[None, :]
    tl.store(dq + o_dx, b_dq.to(dq.dtype.element_ty), mask=m_x)
    tl.store(dk + o_dx, b_dk.to(dk.dtype.element_ty), mask=m_x)
