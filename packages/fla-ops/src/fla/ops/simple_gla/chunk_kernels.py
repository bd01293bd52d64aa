"""Triton kernels of chunked linear attention with scalar decay; chunk_torch.py is the same algorithm in PyTorch.

Inside a chunk of C steps every exponent is a sum of log decays over some span of steps, taken by a prefix sum or by a
product with a 0/1 matrix: none is the difference of two sums, and none is positive. HV value heads share H query and
key heads. Letters as in ``_chunks_kernels.py``.

``DECAY`` says where the log decays come from: 0, there are none; 1, one for each head, ``g[HV]``; 2, one for each step
and head, ``g[B, T, HV]``.
"""

import triton
import triton.language as tl

from fla.ops._chunks_kernels import (
    LOG2E,
    decay_after,
    decay_before,
    decay_between,
    decay_between_transposed,
    decay_of_steps,
    locate_chunk,
    locate_sequence,
    span_sums,
    sums_before,
)


@triton.jit(do_not_specialize=["T"])
def state_kernel(
    x,
    y,
    g,
    states,
    start,
    end,
    cu_seqlens,
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
    HAS_START: tl.constexpr,
    REVERSE: tl.constexpr,
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Carry the state over the chunks of one sequence and head, and store what it was before each chunk.

    Forward: x = k, y = v, ``S' = e^total S + sum_j e^suf_j k_j v_j^T``. In reverse: x = q, y = do, and S is the
    gradient of the state, ``dS' = e^total dS + scale sum_i e^pre_i q_i do_i^T``.
    """
    i_kv, i_nh = tl.program_id(0), tl.program_id(1)
    i_k, i_v = i_kv // tl.cdiv(V, BV), i_kv % tl.cdiv(V, BV)
    i_n, i_h = i_nh // HV, i_nh % HV
    i_hx = i_h // (HV // H)
    begin, length, i_first = locate_sequence(i_n, cu_seqlens, first_chunk, T, C, PACKED)
    chunks = tl.cdiv(length, C)

    o_k, o_v, o_c = i_k * BK + tl.arange(0, BK), i_v * BV + tl.arange(0, BV), tl.arange(0, C)
    m_k, m_v = o_k < K, o_v < V
    m_state = m_k[:, None] & m_v[None, :]
    o_state = o_k[:, None] * V + o_v[None, :]
    DTYPE: tl.constexpr = x.dtype.element_ty

    b_s = tl.zeros([BK, BV], dtype=tl.float32)
    if HAS_START:
        b_s += tl.load(start + i_nh.to(tl.int64) * K * V + o_state, mask=m_state, other=0.0).to(tl.float32)
    for i in range(0, chunks):
        i_c = chunks - 1 - i if REVERSE else i
        tl.store(states + ((i_first + i_c) * HV + i_h) * K * V + o_state, b_s.to(DTYPE), mask=m_state)
        first = begin + i_c * C
        left = length - i_c * C
        m_c = o_c < left
        p_x = x + (first * H + i_hx) * K + o_c[None, :] * (H * K) + o_k[:, None]
        p_y = y + (first * HV + i_h) * V + o_c[:, None] * (HV * V) + o_v[None, :]
        b_x = tl.load(p_x, mask=m_k[:, None] & m_c[None, :], other=0.0)
        b_y = tl.load(p_y, mask=m_c[:, None] & m_v[None, :], other=0.0)
        if DECAY == 0:
            b_e = tl.full([C], 1.0, dtype=tl.float32)
        else:
            p_g = g + (first * HV + i_h) if DECAY == 2 else g + i_h
            b_g = decay_of_steps(p_g, o_c, m_c, HV, DECAY)
            b_s *= tl.exp2(tl.sum(b_g, 0) * LOG2E)
            b_e = decay_before(p_g, o_c, left, HV, DECAY) if REVERSE else decay_after(p_g, o_c, left, C, HV, DECAY)
        b_x = (b_x * (b_e * scale)[None, :]).to(DTYPE)
        b_s += tl.dot(b_x, b_y, input_precision=PRECISION)
    tl.store(end + i_nh.to(tl.int64) * K * V + o_state, b_s, mask=m_state)


@triton.jit(do_not_specialize=["T"])
def output_kernel(
    q,
    k,
    v,
    g,
    states,
    o,
    scores,
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
    STORE_SCORES: tl.constexpr,
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """``o_i = scale e^pre_i q_i S + sum_{j <= i} A_ij v_j`` for one chunk, head and block of V."""
    i_cv, i_h = tl.program_id(0), tl.program_id(1)
    i_c, i_v = i_cv // tl.cdiv(V, BV), i_cv % tl.cdiv(V, BV)
    first, left = locate_chunk(i_c, cu_seqlens, sequence, first_chunk, T, C, PACKED)
    if left <= 0:
        return
    o_c, o_v = tl.arange(0, C), i_v * BV + tl.arange(0, BV)
    o_i, o_j = o_c[:, None], o_c[None, :]
    m_c, m_v = o_c < left, o_v < V
    row_q, row_v = first * H + i_h // (HV // H), first * HV + i_h
    q += row_q * K
    k += row_q * K
    v += row_v * V
    o += row_v * V
    states += (i_c.to(tl.int64) * HV + i_h) * K * V
    g += row_v if DECAY == 2 else i_h
    DTYPE: tl.constexpr = q.dtype.element_ty

    b_o = tl.zeros([C, BV], dtype=tl.float32)
    b_a = tl.zeros([C, C], dtype=tl.float32)
    for i_k in range(0, tl.cdiv(K, BK)):
        o_k = i_k * BK + tl.arange(0, BK)
        m_k = o_k < K
        b_q = tl.load(q + o_i * (H * K) + o_k[None, :], mask=m_c[:, None] & m_k[None, :], other=0.0)
        b_kt = tl.load(k + o_j * (H * K) + o_k[:, None], mask=m_k[:, None] & m_c[None, :], other=0.0)
        b_s = tl.load(states + o_k[:, None] * V + o_v[None, :], mask=m_k[:, None] & m_v[None, :], other=0.0)
        b_o += tl.dot(b_q, b_s, input_precision=PRECISION)
        b_a += tl.dot(b_q, b_kt, input_precision=PRECISION)
    if DECAY != 0:
        b_o *= decay_before(g, o_c, left, HV, DECAY)[:, None]
        b_a *= decay_between(g, o_i, o_j, o_c, left, HV, DECAY, DTYPE, PRECISION)
    b_a = (tl.where(o_i >= o_j, b_a, 0.0) * scale).to(DTYPE)

    o_y, m_y = o_i * (HV * V) + o_v[None, :], m_c[:, None] & m_v[None, :]
    b_v = tl.load(v + o_y, mask=m_y, other=0.0)
    b_o = b_o * scale + tl.dot(b_a, b_v, input_precision=PRECISION)
    tl.store(o + o_y, b_o.to(DTYPE), mask=m_y)
    if STORE_SCORES:
        if i_v == 0:
            tl.store(scores + row_v * C + o_i * (HV * C) + o_j, b_a, mask=m_c[:, None])


@triton.jit(do_not_specialize=["T"])
def value_grad_kernel(
    k,
    g,
    scores,
    do,
    dstates,
    dv,
    cu_seqlens,
    sequence,
    first_chunk,
    T,
    H: tl.constexpr,
    HV: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    C: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    DECAY: tl.constexpr,
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """``dv_j = sum_{i >= j} A_ij do_i + e^suf_j k_j dS`` for one chunk, head and block of V."""
    i_cv, i_h = tl.program_id(0), tl.program_id(1)
    i_c, i_v = i_cv // tl.cdiv(V, BV), i_cv % tl.cdiv(V, BV)
    first, left = locate_chunk(i_c, cu_seqlens, sequence, first_chunk, T, C, PACKED)
    if left <= 0:
        return
    o_c, o_v = tl.arange(0, C), i_v * BV + tl.arange(0, BV)
    m_c, m_v = o_c < left, o_v < V
    row_q, row_v = first * H + i_h // (HV // H), first * HV + i_h
    k += row_q * K
    dstates += (i_c.to(tl.int64) * HV + i_h) * K * V
    g += row_v if DECAY == 2 else i_h
    o_y, m_y = row_v * V + o_c[:, None] * (HV * V) + o_v[None, :], m_c[:, None] & m_v[None, :]

    b_dv = tl.zeros([C, BV], dtype=tl.float32)
    for i_k in range(0, tl.cdiv(K, BK)):
        o_k = i_k * BK + tl.arange(0, BK)
        m_k = o_k < K
        b_k = tl.load(k + o_c[:, None] * (H * K) + o_k[None, :], mask=m_c[:, None] & m_k[None, :], other=0.0)
        b_ds = tl.load(dstates + o_k[:, None] * V + o_v[None, :], mask=m_k[:, None] & m_v[None, :], other=0.0)
        b_dv += tl.dot(b_k, b_ds, input_precision=PRECISION)
    if DECAY != 0:
        b_dv *= decay_after(g, o_c, left, C, HV, DECAY)[:, None]
    p_at = scores + row_v * C + o_c[None, :] * (HV * C) + o_c[:, None]
    b_at = tl.load(p_at, mask=m_c[None, :], other=0.0)
    b_do = tl.load(do + o_y, mask=m_y, other=0.0)
    b_dv += tl.dot(b_at, b_do, input_precision=PRECISION)
    tl.store(dv + o_y, b_dv.to(dv.dtype.element_ty), mask=m_y)


@triton.jit(do_not_specialize=["T"])
def key_grad_kernel(
    q,
    k,
    v,
    g,
    scores,
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
    DECAY: tl.constexpr,
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Gradients of q and k ``[B, T, HV, K]`` for one chunk, head and block of K, and its part of the gradient of g.

    Those of g are summed over the blocks of K afterwards: ``dg[block, B, T, HV]``.
    """
    i_ck, i_h = tl.program_id(0), tl.program_id(1)
    i_c, i_k = i_ck // tl.cdiv(K, BK), i_ck % tl.cdiv(K, BK)
    first, left = locate_chunk(i_c, cu_seqlens, sequence, first_chunk, T, C, PACKED)
    if left <= 0:
        return
    o_c, o_k = tl.arange(0, C), i_k * BK + tl.arange(0, BK)
    o_i, o_j = o_c[:, None], o_c[None, :]
    m_c, m_k = o_c < left, o_k < K
    row_q, row_v = first * H + i_h // (HV // H), first * HV + i_h
    v += row_v * V
    do += row_v * V
    states += (i_c.to(tl.int64) * HV + i_h) * K * V
    dstates += (i_c.to(tl.int64) * HV + i_h) * K * V
    g += row_v if DECAY == 2 else i_h
    DTYPE: tl.constexpr = q.dtype.element_ty

    # Two walks over V, so that few accumulators are alive at a time.
    b_da = tl.zeros([C, C], dtype=tl.float32)
    for i_v in range(0, tl.cdiv(V, BV)):
        o_v = i_v * BV + tl.arange(0, BV)
        m_v = o_v < V
        b_do = tl.load(do + o_i * (HV * V) + o_v[None, :], mask=m_c[:, None] & m_v[None, :], other=0.0)
        b_vt = tl.load(v + o_j * (HV * V) + o_v[:, None], mask=m_v[:, None] & m_c[None, :], other=0.0)
        b_da += tl.dot(b_do, b_vt, input_precision=PRECISION)
    b_dg = tl.zeros([C], dtype=tl.float32)
    if DECAY == 2:
        if i_k == 0:
            # Step t lies between j and i where j < t <= i: sum over i first, then over j.
            b_a = tl.load(scores + row_v * C + o_i * (HV * C) + o_j, mask=m_c[:, None], other=0.0)
            b_from_t_on = span_sums(o_i <= o_j, tl.where(o_i > o_j, b_da * b_a, 0.0), DTYPE, PRECISION)
            b_dg += tl.sum(tl.where(o_i > o_j, b_from_t_on, 0.0), 1)
    b_da = tl.where(o_i >= o_j, b_da, 0.0) * scale
    if DECAY != 0:
        b_da *= decay_between(g, o_i, o_j, o_c, left, HV, DECAY, DTYPE, PRECISION)
    b_w = b_da.to(DTYPE)

    b_dat = tl.zeros([C, C], dtype=tl.float32)
    b_dq = tl.zeros([C, BK], dtype=tl.float32)
    b_dk = tl.zeros([C, BK], dtype=tl.float32)
    b_sds = tl.zeros([BK], dtype=tl.float32)
    for i_v in range(0, tl.cdiv(V, BV)):
        o_v = i_v * BV + tl.arange(0, BV)
        m_v = o_v < V
        o_y, m_y = o_i * (HV * V) + o_v[None, :], m_c[:, None] & m_v[None, :]
        o_s, m_s = o_k[None, :] * V + o_v[:, None], m_v[:, None] & m_k[None, :]
        b_v = tl.load(v + o_y, mask=m_y, other=0.0)
        b_do = tl.load(do + o_y, mask=m_y, other=0.0)
        b_dot = tl.load(do + o_j * (HV * V) + o_v[:, None], mask=m_v[:, None] & m_c[None, :], other=0.0)
        b_st = tl.load(states + o_s, mask=m_s, other=0.0)
        b_dst = tl.load(dstates + o_s, mask=m_s, other=0.0)
        b_dat += tl.dot(b_v, b_dot, input_precision=PRECISION)
        b_dq += tl.dot(b_do, b_st, input_precision=PRECISION)
        b_dk += tl.dot(b_v, b_dst, input_precision=PRECISION)
        if DECAY == 2:
            b_sds += tl.sum(b_st.to(tl.float32) * b_dst.to(tl.float32), 0)
    b_dat = tl.where(o_i <= o_j, b_dat, 0.0) * scale
    if DECAY != 0:
        b_dat *= decay_between_transposed(g, o_i, o_j, o_c, left, HV, DECAY, DTYPE, PRECISION)
    b_wt = b_dat.to(DTYPE)

    o_x, m_x = o_i * (H * K) + o_k[None, :], m_c[:, None] & m_k[None, :]
    b_q = tl.load(q + row_q * K + o_x, mask=m_x, other=0.0)
    b_k = tl.load(k + row_q * K + o_x, mask=m_x, other=0.0)
    b_dq *= scale
    if DECAY != 0:
        b_dq *= decay_before(g, o_c, left, HV, DECAY)[:, None]
        b_dk *= decay_after(g, o_c, left, C, HV, DECAY)[:, None]
    if DECAY == 2:
        b_total = tl.exp2(tl.sum(decay_of_steps(g, o_c, m_c, HV, DECAY), 0) * LOG2E)
        b_dpre = tl.sum(b_q.to(tl.float32) * b_dq, 1)
        b_dsuf = tl.sum(b_k.to(tl.float32) * b_dk, 1)
        b_dg += tl.cumsum(b_dpre, 0, reverse=True) + sums_before(b_dsuf, o_i, o_j) + b_total * tl.sum(b_sds, 0)
        tl.store(dg + i_k * dg_stride + row_v + o_c * HV, b_dg, mask=m_c)
    b_dq += tl.dot(b_w, b_k, input_precision=PRECISION)
    b_dk += tl.dot(b_wt, b_q, input_precision=PRECISION)
    o_dx = row_v * K + o_i * (HV * K) + o_k[None, :]
    tl.store(dq + o_dx, b_dq.to(DTYPE), mask=m_x)
    tl.store(dk + o_dx, b_dk.to(DTYPE), mask=m_x)
