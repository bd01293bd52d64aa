"""Triton kernels of the chunked gated delta rule; algorithm.py is the same algorithm in PyTorch.

In a chunk of C steps let A hold the scores of q with k, scale included, and P those of the erase keys p with
earlier k. ``delta_pairs_fwd_kernel`` writes A and the corrections R = -(I + P beta)^-1 P, and
``delta_walk_fwd_kernel`` (``walk_kernels.py``) carries the state:

    Y = V - P_read S                                 X = Y + R (beta Y)
    O = scale Q_read S + A (beta X)                  S' = e^total S + K_write^T (beta X)

Backward, dU is the gradient of beta X, so that of beta is X dU, and of V beta dU. No step is divided by its beta.

Where keys repeat, X is a small difference of large numbers, and errors that are written stay in the state. So with
16-bit operands R, Y, beta X and the state that Y reads are split in hi and lo, and a decay by step multiplies what a
product yields, not its operands. X and the gradient of A are split too, unless decay is by channel: with one key and
betas near 2, what steps wrote cancels in the gradient of q.

``DECAY``: 0, nothing decays; 2, by step, ``g[B, T, HV]``; 3, by channel, ``g[B, T, HV, K]``, which the kernels of
``channel_kernels.py`` read: the walks then take Q_read, P_read and K_write in place of q, p and k, for each value head.

``BEFORE``: p is not k, and reads the state before the step's own decay; decay is then none or by step.

Every exponent is a sum of log decays over a span of steps, and none is positive. Walks over 16-bit operands alone take
the difference of two sums, to decay a step's writes. Letters as in ``_shared/chunk_kernels.py``.
"""

import triton
import triton.language as tl

from fla.ops._shared.chunk_kernels import (
    LOG2E,
    decay_after,
    decay_before,
    decay_between,
    decay_of_steps,
    decay_until,
    dot_wide,
    locate_chunk,
    span_sums,
    store_halves,
    sums_before,
    unit_lower_inverse,
)


@triton.jit
def store_pairs(
    scores,
    corrections,
    b_a,
    b_l,
    b_beta,
    o_a,
    m_c,
    o_i,
    o_j,
    stride,
    LEVELS: tl.constexpr,
    DTYPE: tl.constexpr,
    INVERSE_PRECISION: tl.constexpr,
):
    """Store the lower triangle of A, and ``R = -(I + P beta)^-1 P`` for the strictly lower one of P.

    Where keys repeat and beta is near 2, what R makes of values cancels, and errors of the inverse stand out. So R is
    refined once, by its residual ``P + (I + P beta) R``.
    """
    b_l = tl.where(o_i > o_j, b_l, 0.0)
    b_w = b_l * b_beta[None, :]
    b_t = unit_lower_inverse(b_w, o_i, o_j, LEVELS, INVERSE_PRECISION)
    b_r = -dot_wide(b_t, b_l, INVERSE_PRECISION)
    b_left = b_l + b_r + dot_wide(b_w, b_r, INVERSE_PRECISION)
    b_r = tl.where(o_i > o_j, b_r - dot_wide(b_t, b_left, INVERSE_PRECISION), 0.0)
    tl.store(scores + o_a, tl.where(o_i >= o_j, b_a, 0.0).to(DTYPE), mask=m_c[:, None])
    store_halves(corrections + o_a, stride, b_r, m_c[:, None], True)


@triton.jit(do_not_specialize=["T"])
def delta_pairs_fwd_kernel(
    q,  # [B, T, H, K]
    k,  # [B, T, H, K]
    p,  # [B, T, H, K]: k itself unless BEFORE
    beta,  # [B, T, HV]
    g,  # [B, T, HV]: log decays; beta, and never read, where DECAY is 0
    scores,  # [B, T, HV, C]
    corrections,  # [2, B, T, HV, C]: hi and lo; [1, ...] in float32
    cu_seqlens,  # [N + 1], or None
    sequence,  # [M], or None
    first_chunk,  # [N + 1], or None
    scale,
    T,
    stride,  # elements of scores: from hi to lo in corrections
    H: tl.constexpr,
    HV: tl.constexpr,
    K: tl.constexpr,
    C: tl.constexpr,
    LEVELS: tl.constexpr,
    BK: tl.constexpr,
    DECAY: tl.constexpr,
    BEFORE: tl.constexpr,
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
    INVERSE_PRECISION: tl.constexpr,
):
    """The scores A, scale included, and the corrections R of one chunk and head."""
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
    p += row_q * K
    DTYPE: tl.constexpr = q.dtype.element_ty

    b_beta = tl.load(beta + row_v + o_c * HV, mask=m_c, other=0.0).to(tl.float32)
    b_a = tl.zeros([C, C], dtype=tl.float32)
    b_l = tl.zeros([C, C], dtype=tl.float32)
    for i_k in range(0, tl.cdiv(K, BK)):
        o_k = i_k * BK + tl.arange(0, BK)
        m_k = o_k < K
        o_x, m_x = o_i * (H * K) + o_k[None, :], m_c[:, None] & m_k[None, :]
        b_q = tl.load(q + o_x, mask=m_x, other=0.0)
        b_p = tl.load(p + o_x, mask=m_x, other=0.0)
        b_kt = tl.load(k + o_j * (H * K) + o_k[:, None], mask=m_k[:, None] & m_c[None, :], other=0.0)
        b_a += tl.dot(b_q, b_kt, input_precision=PRECISION)
        b_l += tl.dot(b_p, b_kt, input_precision=PRECISION)
    if DECAY == 2:
        b_e = decay_between(g + row_v, o_i, o_j, o_c, left, HV, DECAY, DTYPE, PRECISION)
        b_a *= b_e
        if BEFORE:
            b_e = decay_between(g + row_v, o_i, o_j, o_c, left, HV, DECAY, DTYPE, PRECISION, BEFORE)
        b_l *= b_e
    o_a = row_v * C + o_i * (HV * C) + o_j
    store_pairs(
        scores, corrections, b_a * scale, b_l, b_beta, o_a, m_c, o_i, o_j, stride, LEVELS, DTYPE, INVERSE_PRECISION
    )


@triton.jit(do_not_specialize=["T"])
def delta_pairs_bwd_kernel(
    k,  # [B, T, H, K]
    p,  # [B, T, H, K]: k itself unless BEFORE
    beta,  # [B, T, HV]
    g,  # [B, T, HV]: log decays; read only where DECAY is 2
    scores,  # [B, T, HV, C]
    x,  # [2, B, T, HV, V]: hi and lo; [1, ...] in float32 or where DECAY is 3
    do,  # [B, T, HV, V]
    dv,  # [B, T, HV, V]
    dscores,  # [2, B, T, HV, C]: hi and lo; [1, ...] as x
    dpairs,  # [B, T, HV, C]
    dg,  # [B, T, HV]: the part from pairs; written only where DECAY is 2
    cu_seqlens,  # [N + 1], or None
    sequence,  # [M], or None
    first_chunk,  # [N + 1], or None
    scale,
    T,
    stride,  # elements of scores: from hi to lo in dscores, and by C and V in x
    H: tl.constexpr,
    HV: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    C: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    DECAY: tl.constexpr,
    BEFORE: tl.constexpr,
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """``dA = scale dO X^T`` and ``dP = -dV X^T`` of one chunk and head.

    Where decay is by channel, the upper triangles hold the transposes. Otherwise both gradients include decay and the
    writers' betas, are zero above the diagonal, and dg gets the part that comes from pairs of steps.
    """
    i_c, i_h = tl.program_id(0), tl.program_id(1)
    first, left = locate_chunk(i_c, cu_seqlens, sequence, first_chunk, T, C, PACKED)
    if left <= 0:
        return
    o_c = tl.arange(0, C)
    o_i, o_j = o_c[:, None], o_c[None, :]
    m_c = o_c < left
    row_q, row_v = first * H + i_h // (HV // H), first * HV + i_h
    k += row_q * K
    p += row_q * K
    x += row_v * V
    do += row_v * V
    dv += row_v * V
    o_a = row_v * C + o_i * (HV * C) + o_j
    DTYPE: tl.constexpr = k.dtype.element_ty

    # Gradients of A and P, summed over blocks of V
    b_da = tl.zeros([C, C], dtype=tl.float32)
    b_dl = tl.zeros([C, C], dtype=tl.float32)
    for i_v in range(0, tl.cdiv(V, BV)):
        o_v = i_v * BV + tl.arange(0, BV)
        m_v = o_v < V
        o_y, m_y = o_i * (HV * V) + o_v[None, :], m_c[:, None] & m_v[None, :]
        o_yt, m_yt = o_j * (HV * V) + o_v[:, None], m_v[:, None] & m_c[None, :]
        b_xt = tl.load(x + o_yt, mask=m_yt, other=0.0)
        b_do = tl.load(do + o_y, mask=m_y, other=0.0)
        b_dv = tl.load(dv + o_y, mask=m_y, other=0.0)
        b_da += tl.dot(b_do, b_xt, input_precision=PRECISION)
        if DECAY != 3 and DTYPE != tl.float32:
            b_xt_lo = tl.load(x + (stride // C).to(tl.int64) * V + o_yt, mask=m_yt, other=0.0)
            b_da += tl.dot(b_do, b_xt_lo)
        b_dl -= tl.dot(b_dv, b_xt, input_precision=PRECISION)
    # Transposes above the diagonal, or betas and zeros there
    if DECAY == 3:
        b_dat = tl.zeros([C, C], dtype=tl.float32)
        b_dlt = tl.zeros([C, C], dtype=tl.float32)
        for i_v in range(0, tl.cdiv(V, BV)):
            o_v = i_v * BV + tl.arange(0, BV)
            m_v = o_v < V
            o_y, m_y = o_i * (HV * V) + o_v[None, :], m_c[:, None] & m_v[None, :]
            o_yt, m_yt = o_j * (HV * V) + o_v[:, None], m_v[:, None] & m_c[None, :]
            b_x = tl.load(x + o_y, mask=m_y, other=0.0)
            b_dot = tl.load(do + o_yt, mask=m_yt, other=0.0)
            b_dvt = tl.load(dv + o_yt, mask=m_yt, other=0.0)
            b_dat += tl.dot(b_x, b_dot, input_precision=PRECISION)
            b_dlt -= tl.dot(b_x, b_dvt, input_precision=PRECISION)
        b_da = tl.where(o_i >= o_j, b_da, b_dat)
        b_dl = tl.where(o_i > o_j, b_dl, b_dlt)
    else:
        b_beta = tl.load(beta + row_v + o_c * HV, mask=m_c, other=0.0).to(tl.float32)[None, :]
        b_da = tl.where(o_i >= o_j, b_da * b_beta, 0.0)
        b_dl = tl.where(o_i > o_j, b_dl * b_beta, 0.0)
    # Part of dg from pairs of steps: each score times its gradient, for every step of its span
    if DECAY == 2:
        b_l = tl.zeros([C, C], dtype=tl.float32)
        for i_k in range(0, tl.cdiv(K, BK)):
            o_k = i_k * BK + tl.arange(0, BK)
            m_k = o_k < K
            b_p = tl.load(p + o_i * (H * K) + o_k[None, :], mask=m_c[:, None] & m_k[None, :], other=0.0)
            b_kt = tl.load(k + o_j * (H * K) + o_k[:, None], mask=m_k[:, None] & m_c[None, :], other=0.0)
            b_l += tl.dot(b_p, b_kt, input_precision=PRECISION)
        b_a = tl.load(scores + o_a, mask=m_c[:, None], other=0.0)
        b_da_a = tl.where(o_i > o_j, b_da * b_a, 0.0)
        b_e = decay_between(g + row_v, o_i, o_j, o_c, left, HV, DECAY, DTYPE, PRECISION)
        b_da *= b_e
        if BEFORE:
            b_e = decay_between(g + row_v, o_i, o_j, o_c, left, HV, DECAY, DTYPE, PRECISION, BEFORE)
        b_dl *= b_e
        b_dl_l = b_dl * b_l
        # Step t lies between j and i where j < t <= i, or t < i for a reader before its own decay: sum over i, then j.
        if BEFORE:
            b_from_t_on = span_sums(o_i <= o_j, b_da_a, DTYPE, PRECISION)
            b_from_t_on += span_sums(o_i < o_j, b_dl_l, DTYPE, PRECISION)
        else:
            b_from_t_on = span_sums(o_i <= o_j, b_da_a + b_dl_l, DTYPE, PRECISION)
        tl.store(dg + row_v + o_c * HV, tl.sum(tl.where(o_i > o_j, b_from_t_on, 0.0), 1), mask=m_c)
    # Gradients of the scores, for the kernel of q, k and p
    store_halves(dscores + o_a, stride, b_da * scale, m_c[:, None], DECAY != 3)
    tl.store(dpairs + o_a, b_dl.to(DTYPE), mask=m_c[:, None])


@triton.jit(do_not_specialize=["T"])
def delta_key_bwd_kernel(
    q,  # [B, T, H, K]
    k,  # [B, T, H, K]
    p,  # [B, T, H, K]: k itself unless BEFORE
    beta,  # [B, T, HV]
    g,  # [B, T, HV]: log decays; beta, and never read, where DECAY is 0
    x,  # [2, B, T, HV, V]: hi, which is read, and lo; [1, ...] in float32
    states,  # [M, HV, K, V]: before each chunk
    do,  # [B, T, HV, V]
    dv,  # [B, T, HV, V]
    dstates,  # [M, HV, K, V]: after each chunk
    dscores,  # [2, B, T, HV, C]: hi and lo; [1, ...] in float32
    dpairs,  # [B, T, HV, C]
    dq,  # [B, T, HV, K]
    dk,  # [B, T, HV, K]
    dp,  # [B, T, HV, K], or None unless BEFORE
    dg,  # [1 + blocks of K, B, T, HV]: the last is from the pairs; written only where DECAY is 2
    cu_seqlens,  # [N + 1], or None
    sequence,  # [M], or None
    first_chunk,  # [N + 1], or None
    scale,
    T,
    stride,  # B * T * HV: from block to block in dg
    H: tl.constexpr,
    HV: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    C: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    DECAY: tl.constexpr,
    BEFORE: tl.constexpr,
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Gradients of q, k and p ``[B, T, HV, K]`` for one chunk, head and block of K, and of the decay.

    ``dg[block, B, T, HV]`` is summed over the blocks afterwards.
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
    x += row_v * V
    do += row_v * V
    dv += row_v * V
    states += (i_c.to(tl.int64) * HV + i_h) * K * V
    dstates += (i_c.to(tl.int64) * HV + i_h) * K * V
    DTYPE: tl.constexpr = q.dtype.element_ty

    # Keys, betas and decays of the block of K
    o_x, m_x = row_q * K + o_i * (H * K) + o_k[None, :], m_c[:, None] & m_k[None, :]
    o_dx = row_v * K + o_i * (HV * K) + o_k[None, :]
    o_a, o_at = row_v * C + o_i * (HV * C) + o_j, row_v * C + o_j * (HV * C) + o_i
    b_k = tl.load(k + o_x, mask=m_x, other=0.0)
    b_beta = tl.load(beta + row_v + o_c * HV, mask=m_c, other=0.0).to(tl.float32)[:, None]
    if DECAY == 2:
        b_pre = decay_before(g + row_v, o_c, left, HV, DECAY)[:, None]

    # Two loops over V, for the readers q and p, so that few accumulators are alive at a time. First dq, through the
    # state before the chunk, and dk, through the gradient of the state after it.
    b_dq = tl.zeros([C, BK], dtype=tl.float32)
    b_dk = tl.zeros([C, BK], dtype=tl.float32)
    b_sds = tl.zeros([BK], dtype=tl.float32)
    for i_v in range(0, tl.cdiv(V, BV)):
        o_v = i_v * BV + tl.arange(0, BV)
        m_v = o_v < V
        o_y, m_y = o_i * (HV * V) + o_v[None, :], m_c[:, None] & m_v[None, :]
        o_s, m_s = o_k[None, :] * V + o_v[:, None], m_v[:, None] & m_k[None, :]
        b_do = tl.load(do + o_y, mask=m_y, other=0.0)
        b_st = tl.load(states + o_s, mask=m_s, other=0.0)
        b_dq += tl.dot(b_do, b_st, input_precision=PRECISION)
        b_x = tl.load(x + o_y, mask=m_y, other=0.0)
        b_dst = tl.load(dstates + o_s, mask=m_s, other=0.0)
        b_dk += tl.dot(b_x, b_dst, input_precision=PRECISION)
        if DECAY != 0:
            b_sds += tl.sum(b_st.to(tl.float32) * b_dst.to(tl.float32), 0)
    # Decay both, and begin dg with the parts that go through the states
    b_q = tl.load(q + o_x, mask=m_x, other=0.0)
    b_dq *= scale
    b_dk *= b_beta
    if DECAY == 2:
        b_dq *= b_pre
        b_dk *= decay_after(g + row_v, o_c, left, C, HV, DECAY)[:, None]
        b_dg = tl.cumsum(tl.sum(b_q * b_dq, 1), 0, reverse=True) + sums_before(tl.sum(b_k * b_dk, 1), o_i, o_j)
        b_dg += tl.exp2(tl.sum(decay_of_steps(g + row_v, o_c, m_c, HV, DECAY), 0) * LOG2E) * tl.sum(b_sds, 0)
    # Add what goes through pairs of q and k
    b_dq += tl.dot(tl.load(dscores + o_a, mask=m_c[:, None], other=0.0), b_k, input_precision=PRECISION)
    if DTYPE != tl.float32:
        dscores_lo = dscores + tl.cast(stride, tl.int64) * C
        b_dq += tl.dot(tl.load(dscores_lo + o_a, mask=m_c[:, None], other=0.0), b_k)
    b_dk += tl.dot(tl.load(dscores + o_at, mask=m_c[None, :], other=0.0), b_q, input_precision=PRECISION)
    tl.store(dq + o_dx, b_dq.to(DTYPE), mask=m_x)

    # Second loop: dp, through the state before the chunk
    b_dp = tl.zeros([C, BK], dtype=tl.float32)
    for i_v in range(0, tl.cdiv(V, BV)):
        o_v = i_v * BV + tl.arange(0, BV)
        m_v = o_v < V
        o_s, m_s = o_k[None, :] * V + o_v[:, None], m_v[:, None] & m_k[None, :]
        b_dv = tl.load(dv + o_i * (HV * V) + o_v[None, :], mask=m_c[:, None] & m_v[None, :], other=0.0)
        b_dp -= tl.dot(b_dv, tl.load(states + o_s, mask=m_s, other=0.0), input_precision=PRECISION)
    b_p = tl.load(p + o_x, mask=m_x, other=0.0)
    if DECAY == 2:
        b_dp *= decay_until(g + row_v, o_i, o_j, o_c, left, HV, DECAY, BEFORE)[:, None]
        b_dread = tl.sum(b_p * b_dp, 1)
        if BEFORE:
            b_dg += tl.sum(tl.where(o_j > o_i, b_dread[None, :], 0.0), 1)
        else:
            b_dg += tl.cumsum(b_dread, 0, reverse=True)
        tl.store(dg + i_k.to(tl.int64) * stride + row_v + o_c * HV, b_dg, mask=m_c)
    # Add what goes through pairs of p and k
    b_dp += tl.dot(tl.load(dpairs + o_a, mask=m_c[:, None], other=0.0), b_k, input_precision=PRECISION)
    b_dk += tl.dot(tl.load(dpairs + o_at, mask=m_c[None, :], other=0.0), b_p, input_precision=PRECISION)

    # Store dp, or add it to dk where k is the erase key
    if BEFORE:
        tl.store(dp + o_dx, b_dp.to(DTYPE), mask=m_x)
    else:
        b_dk += b_dp
    tl.store(dk + o_dx, b_dk.to(DTYPE), mask=m_x)
