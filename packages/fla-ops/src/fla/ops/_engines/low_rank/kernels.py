"""Triton kernels of the chunked generalized delta rule; algorithm.py is the same algorithm in PyTorch.

In a chunk of C steps let Q_k and Q_b hold the scores of q with k and b, scale included, and A_k and A_b those of a with
earlier k and b. ``low_rank_pairs_fwd_kernel`` writes the first three, R = (I - A_b)^-1 - I, and the operands with
their decay to the chunk's start or end; ``low_rank_walk_fwd_kernel`` carries the state:

    Y = A_read S + A_k V        W = Y + R Y        O = scale Q_read S + Q_k V + Q_b W
    S' = e^total S + K_write^T V + B_write^T W

With 16-bit operands R, Y and W are split in hi and lo: see ``delta/kernels.py``.
Queries read after a step's own decay, a before it. Every exponent is a sum of log decays over a span of steps; none is
the difference of two sums, and none is positive but in chunks whose decay is mild. Letters as in
``_shared/chunk_kernels.py``.
"""

import triton
import triton.language as tl

from fla.ops._shared.chunk_kernels import (
    LOG2E,
    correct,
    decays_of_halves,
    dot_halves,
    from_middle,
    half_pairs,
    is_mild,
    load_decay,
    locate_chunk,
    locate_sequence,
    pair_sides_grad,
    span_sums,
    split_program,
    store_halves,
    through_states,
    through_states_grad,
    unit_lower_inverse,
)


@triton.jit
def scores_by_halving(
    x,
    k,
    b,
    spans,
    b_g,
    o_x,
    m_x,
    o_i,
    o_j,
    b_xk,
    b_xb,
    C: tl.constexpr,
    LEVELS: tl.constexpr,
    DTYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Add the scores of readers x with earlier k and b, over some channels; nothing on and above the diagonal."""
    for level in range(LEVELS):
        b_e = tl.exp2(span_sums(tl.load(spans + level * C * C + o_i * C + o_j), b_g, DTYPE, PRECISION) * LOG2E)
        m_late = ((o_i >> level) & 1) == 1
        m_pairs = half_pairs(o_i, o_j, level) & (o_i > o_j)
        b_y = (tl.load(tl.where(m_late, x + o_x, k + o_x), mask=m_x, other=0.0) * b_e).to(DTYPE)
        b_xk += tl.where(m_pairs, tl.dot(b_y, tl.trans(b_y), input_precision=PRECISION), 0.0)
        b_y = (tl.load(tl.where(m_late, x + o_x, b + o_x), mask=m_x, other=0.0) * b_e).to(DTYPE)
        b_xb += tl.where(m_pairs, tl.dot(b_y, tl.trans(b_y), input_precision=PRECISION), 0.0)
    return b_xk, b_xb


@triton.jit(do_not_specialize=["T"])
def low_rank_pairs_fwd_kernel(
    q,  # [B, T, H, K]
    k,  # [B, T, H, K]
    a,  # [B, T, H, K]
    b,  # [B, T, H, K]
    g,  # [B, T, H, K]: log decays
    spans,  # [LEVELS, C, C]: 0 or 1, for readers after their own decay
    spans_before,  # [LEVELS, C, C]: 0 or 1, for readers before it
    scores_qk,  # [B, T, H, C]
    scores_qb,  # [B, T, H, C]
    scores_ak,  # [B, T, H, C]
    corrections,  # [2, B, T, H, C]: hi and lo; [1, ...] in float32
    q_read,  # [B, T, H, K]
    a_read,  # [B, T, H, K]
    k_write,  # [B, T, H, K]
    b_write,  # [B, T, H, K]
    total,  # [M, H, K]: decay over each chunk
    cu_seqlens,  # [N + 1], or None
    sequence,  # [M], or None
    first_chunk,  # [N + 1], or None
    scale,
    T,
    stride,  # elements of scores_qk: from hi to lo in corrections
    H: tl.constexpr,
    K: tl.constexpr,
    C: tl.constexpr,
    LEVELS: tl.constexpr,
    BK: tl.constexpr,
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
    INVERSE_PRECISION: tl.constexpr,
):
    """The scores, the inverse and the decayed operands of one chunk and head."""
    i_c, i_h = tl.program_id(0), tl.program_id(1)
    first, left = locate_chunk(i_c, cu_seqlens, sequence, first_chunk, T, C, PACKED)
    if left <= 0:
        return
    o_c = tl.arange(0, C)
    o_i, o_j = o_c[:, None], o_c[None, :]
    m_c = o_c < left
    row = first * H + i_h
    o_s, m_s = row * C + o_i * (H * C) + o_j, m_c[:, None]
    DTYPE: tl.constexpr = q.dtype.element_ty

    # Two loops over K, for the readers q and a, so that few accumulators are alive at a time. First the scores of q.
    b_qk = tl.zeros([C, C], dtype=tl.float32)
    b_qb = tl.zeros([C, C], dtype=tl.float32)
    b_own_k = tl.zeros([C], dtype=tl.float32)
    b_own_b = tl.zeros([C], dtype=tl.float32)
    for i_k in range(0, tl.cdiv(K, BK)):
        o_k = i_k * BK + tl.arange(0, BK)
        m_k = o_k < K
        o_x, m_x = row * K + o_i * (H * K) + o_k[None, :], m_c[:, None] & m_k[None, :]
        b_q = tl.load(q + o_x, mask=m_x, other=0.0)
        b_k = tl.load(k + o_x, mask=m_x, other=0.0)
        b_b = tl.load(b + o_x, mask=m_x, other=0.0)
        # Own scores, which no decay enters
        b_own_k += tl.sum(b_q.to(tl.float32) * b_k.to(tl.float32), 1)
        b_own_b += tl.sum(b_q.to(tl.float32) * b_b.to(tl.float32), 1)
        b_g = load_decay(g + o_x, m_x)
        b_total = tl.exp2(tl.sum(b_g.to(tl.float32), 0) * LOG2E)
        tl.store(total + (i_c.to(tl.int64) * H + i_h) * K + o_k, b_total, mask=m_k)
        # Mild decay: one product from the chunk's middle. Else: one product for each level of halving.
        if is_mild(b_g, o_i, C, DTYPE):
            b_m = from_middle(b_g, o_i, o_j, C, DTYPE, PRECISION)
            b_early, b_late = decays_of_halves(b_g, o_i, C)
            b_y = b_q * tl.exp2(b_m * LOG2E)
            tl.store(q_read + o_x, (b_y * b_early).to(DTYPE), mask=m_x)
            b_x = b_y.to(DTYPE)
            b_e = tl.exp2(-b_m * LOG2E)
            b_y = b_k * b_e
            tl.store(k_write + o_x, (b_y * b_late).to(DTYPE), mask=m_x)
            b_qk += tl.dot(b_x, tl.trans(b_y.to(DTYPE)), input_precision=PRECISION)
            b_y = b_b * b_e
            tl.store(b_write + o_x, (b_y * b_late).to(DTYPE), mask=m_x)
            b_qb += tl.dot(b_x, tl.trans(b_y.to(DTYPE)), input_precision=PRECISION)
        else:
            b_e = tl.exp2(span_sums(o_j <= o_i, b_g, DTYPE, PRECISION) * LOG2E)
            tl.store(q_read + o_x, (b_q * b_e).to(DTYPE), mask=m_x)
            b_e = tl.exp2(span_sums(o_j > o_i, b_g, DTYPE, PRECISION) * LOG2E)
            tl.store(k_write + o_x, (b_k * b_e).to(DTYPE), mask=m_x)
            tl.store(b_write + o_x, (b_b * b_e).to(DTYPE), mask=m_x)
            b_qk, b_qb = scores_by_halving(
                q, k, b, spans, b_g, o_x, m_x, o_i, o_j, b_qk, b_qb, C, LEVELS, DTYPE, PRECISION
            )
    # Store the scores of q, own ones on the diagonal
    b_qk = tl.where(o_i > o_j, b_qk, tl.where(o_i == o_j, b_own_k[:, None], 0.0))
    b_qb = tl.where(o_i > o_j, b_qb, tl.where(o_i == o_j, b_own_b[:, None], 0.0))
    tl.store(scores_qk + o_s, (b_qk * scale).to(DTYPE), mask=m_s)
    tl.store(scores_qb + o_s, (b_qb * scale).to(DTYPE), mask=m_s)

    # Second loop: the scores of a, which reads before its step's decay
    b_ak = tl.zeros([C, C], dtype=tl.float32)
    b_ab = tl.zeros([C, C], dtype=tl.float32)
    for i_k in range(0, tl.cdiv(K, BK)):
        o_k = i_k * BK + tl.arange(0, BK)
        m_k = o_k < K
        o_x, m_x = row * K + o_i * (H * K) + o_k[None, :], m_c[:, None] & m_k[None, :]
        b_a = tl.load(a + o_x, mask=m_x, other=0.0)
        b_g = load_decay(g + o_x, m_x)
        if is_mild(b_g, o_i, C, DTYPE):
            b_m = from_middle(b_g, o_i, o_j, C, DTYPE, PRECISION)
            b_early, _ = decays_of_halves(b_g, o_i, C)
            b_y = b_a * tl.exp2((b_m - b_g.to(tl.float32)) * LOG2E)
            tl.store(a_read + o_x, (b_y * b_early).to(DTYPE), mask=m_x)
            b_x = b_y.to(DTYPE)
            b_e = tl.exp2(-b_m * LOG2E)
            b_y = (tl.load(k + o_x, mask=m_x, other=0.0) * b_e).to(DTYPE)
            b_ak += tl.dot(b_x, tl.trans(b_y), input_precision=PRECISION)
            b_y = (tl.load(b + o_x, mask=m_x, other=0.0) * b_e).to(DTYPE)
            b_ab += tl.dot(b_x, tl.trans(b_y), input_precision=PRECISION)
        else:
            b_e = tl.exp2(span_sums(o_j < o_i, b_g, DTYPE, PRECISION) * LOG2E)
            tl.store(a_read + o_x, (b_a * b_e).to(DTYPE), mask=m_x)
            b_ak, b_ab = scores_by_halving(
                a, k, b, spans_before, b_g, o_x, m_x, o_i, o_j, b_ak, b_ab, C, LEVELS, DTYPE, PRECISION
            )
    # Store the scores of a with k, and the corrections that those with b make
    tl.store(scores_ak + o_s, tl.where(o_i > o_j, b_ak, 0.0).to(DTYPE), mask=m_s)
    b_r = unit_lower_inverse(tl.where(o_i > o_j, -b_ab, 0.0), o_i, o_j, LEVELS, INVERSE_PRECISION)
    store_halves(corrections + o_s, stride, tl.where(o_i > o_j, b_r, 0.0), m_s, True)


@triton.jit(do_not_specialize=["T"])
def low_rank_walk_fwd_kernel(
    q_read,  # [B, T, H, K]
    a_read,  # [B, T, H, K]
    k_write,  # [B, T, H, K]
    b_write,  # [B, T, H, K]
    v,  # [B, T, H, V]
    total,  # [M, H, K]: decay over each chunk
    scores_qk,  # [B, T, H, C]
    scores_qb,  # [B, T, H, C]
    scores_ak,  # [B, T, H, C]
    corrections,  # [2, B, T, H, C]: hi and lo; [1, ...] in float32
    o,  # [B, T, H, V], or None where FOR_BACKWARD
    w,  # [B, T, H, V], or None unless FOR_BACKWARD
    states,  # [M, H, K, V]: before each chunk, or None unless FOR_BACKWARD
    start,  # [N, H, K, V], or None
    end,  # [N, H, K, V], or None where FOR_BACKWARD
    cu_seqlens,  # [N + 1], or None
    first_chunk,  # [N + 1], or None
    scale,
    T,
    stride,  # elements of scores_qk: from hi to lo in corrections
    H: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    C: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    HAS_START: tl.constexpr,
    FOR_BACKWARD: tl.constexpr,
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Carry the state over the chunks of one sequence, head and block of V, and write o.

    ``FOR_BACKWARD``: write W and the state before each chunk instead.
    """
    i_v, i_nh = split_program(tl.cdiv(V, BV))
    i_n, i_h = i_nh // H, i_nh % H
    begin, length, i_first = locate_sequence(i_n, cu_seqlens, first_chunk, T, C, PACKED)
    o_k, o_v, o_c = tl.arange(0, BK), i_v * BV + tl.arange(0, BV), tl.arange(0, C)
    o_i, o_j = o_c[:, None], o_c[None, :]
    m_k, m_v = o_k < K, o_v < V
    m_st = m_v[:, None] & m_k[None, :]
    o_st = o_v[:, None] + o_k[None, :] * V
    DTYPE: tl.constexpr = v.dtype.element_ty

    b_st = tl.zeros([BV, BK], dtype=tl.float32)
    if HAS_START:
        b_st += tl.load(start + i_nh.to(tl.int64) * K * V + o_st, mask=m_st, other=0.0).to(tl.float32)
    o_x, o_xt = o_i * (H * K) + o_k[None, :], o_j * (H * K) + o_k[:, None]
    o_yt, o_at = o_j * (H * V) + o_v[:, None], o_j * (H * C) + o_i
    # Fetch the decay a chunk ahead: the compiler fetches early only what is an operand of a product
    p_total = total + (i_first * H + i_h) * K + o_k
    b_total_ahead = tl.load(p_total, mask=m_k & (length > 0), other=0.0)
    for i_c in range(0, tl.cdiv(length, C)):
        m_c = o_c < length - i_c * C
        m_x, m_xt, m_yt = m_c[:, None] & m_k[None, :], m_k[:, None] & m_c[None, :], m_v[:, None] & m_c[None, :]
        m_at, row = m_c[None, :], (begin + i_c * C) * H + i_h
        b_total = b_total_ahead
        p_total += H * K
        b_total_ahead = tl.load(p_total, mask=m_k & ((i_c + 1) * C < length), other=0.0)
        # Read the state with a: Y, and W by the corrections
        b_sd = b_st.to(DTYPE)
        b_vt = tl.load(v + row * V + o_yt, mask=m_yt, other=0.0)
        b_y = tl.dot(b_sd, tl.load(a_read + row * K + o_xt, mask=m_xt, other=0.0), input_precision=PRECISION)
        b_y = tl.dot(b_vt, tl.load(scores_ak + row * C + o_at, mask=m_at, other=0.0), b_y, input_precision=PRECISION)
        b_w = b_y + correct(b_y, corrections + row * C + o_at, stride, m_at, DTYPE, PRECISION)
        # Store W and the state, or read the outputs
        if FOR_BACKWARD:
            tl.store(states + ((i_first + i_c) * H + i_h) * K * V + o_st, b_sd, mask=m_st)
            tl.store(w + row * V + o_yt, b_w.to(DTYPE), mask=m_yt)
        else:
            b_qt = tl.load(q_read + row * K + o_xt, mask=m_xt, other=0.0)
            b_o = tl.dot(b_sd, b_qt, input_precision=PRECISION) * scale
            b_qk = tl.load(scores_qk + row * C + o_at, mask=m_at, other=0.0)
            b_o = tl.dot(b_vt, b_qk, b_o, input_precision=PRECISION)
            b_o = dot_halves(b_w, tl.load(scores_qb + row * C + o_at, mask=m_at, other=0.0), b_o, DTYPE, PRECISION)
            tl.store(o + row * V + o_yt, b_o.to(DTYPE), mask=m_yt)
        # Write to the state
        b_st *= b_total[None, :]
        b_st = tl.dot(b_vt, tl.load(k_write + row * K + o_x, mask=m_x, other=0.0), b_st, input_precision=PRECISION)
        b_st = dot_halves(b_w, tl.load(b_write + row * K + o_x, mask=m_x, other=0.0), b_st, DTYPE, PRECISION)
    if not FOR_BACKWARD:
        tl.store(end + i_nh.to(tl.int64) * K * V + o_st, b_st, mask=m_st)


@triton.jit(do_not_specialize=["T"])
def low_rank_walk_bwd_kernel(
    q_read,  # [B, T, H, K]
    a_read,  # [B, T, H, K]
    k_write,  # [B, T, H, K]
    b_write,  # [B, T, H, K]
    total,  # [M, H, K]: decay over each chunk
    scores_qk,  # [B, T, H, C]
    scores_qb,  # [B, T, H, C]
    scores_ak,  # [B, T, H, C]
    corrections,  # [2, B, T, H, C]: hi and lo; [1, ...] in float32
    do,  # [B, T, H, V]
    dv,  # [B, T, H, V]
    dy,  # [B, T, H, V]
    dstates,  # [M, H, K, V]: after each chunk
    dend,  # [N, H, K, V], or None
    dstart,  # [N, H, K, V]
    cu_seqlens,  # [N + 1], or None
    first_chunk,  # [N + 1], or None
    scale,
    T,
    stride,  # elements of scores_qk: from hi to lo in corrections
    H: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    C: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    HAS_DEND: tl.constexpr,
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Carry the gradient of the state back over the chunks of one sequence, head and block of V.

    ``dW = Q_b^T dO + B_write dS'``, ``dY = dW + R^T dW``, ``dV = Q_k^T dO + A_k^T dY + K_write dS'`` and
    ``dS = e^total dS' + scale Q_read^T dO + A_read^T dY``. Writes dV, dY, and dS' of every chunk.
    """
    i_v, i_nh = split_program(tl.cdiv(V, BV))
    i_n, i_h = i_nh // H, i_nh % H
    begin, length, i_first = locate_sequence(i_n, cu_seqlens, first_chunk, T, C, PACKED)
    chunks = tl.cdiv(length, C)
    o_k, o_v, o_c = tl.arange(0, BK), i_v * BV + tl.arange(0, BV), tl.arange(0, C)
    o_i, o_j = o_c[:, None], o_c[None, :]
    m_k, m_v = o_k < K, o_v < V
    m_st = m_v[:, None] & m_k[None, :]
    o_st = o_v[:, None] + o_k[None, :] * V
    DTYPE: tl.constexpr = do.dtype.element_ty

    b_dst = tl.zeros([BV, BK], dtype=tl.float32)
    if HAS_DEND:
        b_dst += tl.load(dend + i_nh.to(tl.int64) * K * V + o_st, mask=m_st, other=0.0).to(tl.float32)
    o_x, o_xt = o_i * (H * K) + o_k[None, :], o_j * (H * K) + o_k[:, None]
    o_yt, o_a = o_j * (H * V) + o_v[:, None], o_i * (H * C) + o_j
    p_total = total + ((i_first + chunks - 1) * H + i_h) * K + o_k
    b_total_ahead = tl.load(p_total, mask=m_k & (length > 0), other=0.0)
    for i in range(0, chunks):
        i_c = chunks - 1 - i
        m_c = o_c < length - i_c * C
        m_x, m_xt, m_yt = m_c[:, None] & m_k[None, :], m_k[:, None] & m_c[None, :], m_v[:, None] & m_c[None, :]
        m_a, row = m_c[:, None], (begin + i_c * C) * H + i_h
        b_total = b_total_ahead
        p_total -= H * K
        b_total_ahead = tl.load(p_total, mask=m_k & (i_c > 0), other=0.0)
        # Gradients of W and Y, then of V
        b_dsd = b_dst.to(DTYPE)
        tl.store(dstates + ((i_first + i_c) * H + i_h) * K * V + o_st, b_dsd, mask=m_st)
        b_dot = tl.load(do + row * V + o_yt, mask=m_yt, other=0.0)
        b_dw = tl.dot(b_dsd, tl.load(b_write + row * K + o_xt, mask=m_xt, other=0.0), input_precision=PRECISION)
        b_dw = tl.dot(b_dot, tl.load(scores_qb + row * C + o_a, mask=m_a, other=0.0), b_dw, input_precision=PRECISION)
        b_dy = b_dw + correct(b_dw, corrections + row * C + o_a, stride, m_a, DTYPE, PRECISION)
        tl.store(dy + row * V + o_yt, b_dy.to(DTYPE), mask=m_yt)
        b_dv = tl.dot(b_dsd, tl.load(k_write + row * K + o_xt, mask=m_xt, other=0.0), input_precision=PRECISION)
        b_dv = tl.dot(b_dot, tl.load(scores_qk + row * C + o_a, mask=m_a, other=0.0), b_dv, input_precision=PRECISION)
        b_dv = dot_halves(b_dy, tl.load(scores_ak + row * C + o_a, mask=m_a, other=0.0), b_dv, DTYPE, PRECISION)
        tl.store(dv + row * V + o_yt, b_dv.to(DTYPE), mask=m_yt)
        # Carry the gradient to the state before the chunk: through q, then through a
        b_dst *= b_total[None, :]
        b_q = tl.load(q_read + row * K + o_x, mask=m_x, other=0.0)
        b_dst = tl.dot((b_dot * scale).to(DTYPE), b_q, b_dst, input_precision=PRECISION)
        b_dst = dot_halves(b_dy, tl.load(a_read + row * K + o_x, mask=m_x, other=0.0), b_dst, DTYPE, PRECISION)
    tl.store(dstart + i_nh.to(tl.int64) * K * V + o_st, b_dst, mask=m_st)


@triton.jit(do_not_specialize=["T"])
def low_rank_pairs_bwd_kernel(
    do,  # [B, T, H, V]
    dy,  # [B, T, H, V]
    v,  # [B, T, H, V]
    w,  # [B, T, H, V]
    dscores,  # [4, B, T, H, C]: of q with k and b, of a with k and b
    cu_seqlens,  # [N + 1], or None
    sequence,  # [M], or None
    first_chunk,  # [N + 1], or None
    scale,
    T,
    stride,  # elements of one of the four dscores
    H: tl.constexpr,
    V: tl.constexpr,
    C: tl.constexpr,
    BV: tl.constexpr,
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Gradients of the scores of q with k and b, of a with k and b: ``dscores[4, B, T, H, C]``, one matrix a program.

    Each is a product such as ``scale dO V^T``, with its transpose above the diagonal.
    """
    i_c, i_h, i_p = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    first, left = locate_chunk(i_c, cu_seqlens, sequence, first_chunk, T, C, PACKED)
    if left <= 0:
        return
    o_c = tl.arange(0, C)
    o_i, o_j = o_c[:, None], o_c[None, :]
    m_c = o_c < left
    row = first * H + i_h
    if i_p < 2:
        x = do
    else:
        x = dy
        scale = 1.0
    if i_p % 2 == 0:
        y = v
    else:
        y = w
    b_w = tl.zeros([C, C], dtype=tl.float32)
    b_wt = tl.zeros([C, C], dtype=tl.float32)
    for i_v in range(0, tl.cdiv(V, BV)):
        o_v = i_v * BV + tl.arange(0, BV)
        m_v = o_v < V
        o_y, m_y = row * V + o_i * (H * V) + o_v[None, :], m_c[:, None] & m_v[None, :]
        o_yt, m_yt = row * V + o_j * (H * V) + o_v[:, None], m_v[:, None] & m_c[None, :]
        b_x = tl.load(x + o_y, mask=m_y, other=0.0)
        b_xt = tl.load(x + o_yt, mask=m_yt, other=0.0)
        b_y = tl.load(y + o_y, mask=m_y, other=0.0)
        b_yt = tl.load(y + o_yt, mask=m_yt, other=0.0)
        b_w += tl.dot(b_x, b_yt, input_precision=PRECISION)
        b_wt += tl.dot(b_y, b_xt, input_precision=PRECISION)
    b_w = tl.where(o_i >= o_j, b_w, b_wt) * scale
    dscores += i_p.to(tl.int64) * stride
    tl.store(dscores + row * C + o_i * (H * C) + o_j, b_w.to(dscores.dtype.element_ty), mask=m_c[:, None])


@triton.jit(do_not_specialize=["T"])
def low_rank_key_bwd_kernel(
    q,  # [B, T, H, K]
    k,  # [B, T, H, K]
    a,  # [B, T, H, K]
    b,  # [B, T, H, K]
    g,  # [B, T, H, K]: log decays
    spans,  # [LEVELS, C, C]: 0 or 1, for readers after their own decay
    spans_before,  # [LEVELS, C, C]: 0 or 1, for readers before it
    v,  # [B, T, H, V]
    w,  # [B, T, H, V]
    states,  # [M, H, K, V]: before each chunk
    do,  # [B, T, H, V]
    dy,  # [B, T, H, V]
    dstates,  # [M, H, K, V]: after each chunk
    dscores,  # [4, B, T, H, C]: of q with k and b, of a with k and b; the transposes above the diagonal
    dq,  # [B, T, H, K]
    dk,  # [B, T, H, K]
    da,  # [B, T, H, K]
    db,  # [B, T, H, K]
    dg,  # [B, T, H, K]
    cu_seqlens,  # [N + 1], or None
    sequence,  # [M], or None
    first_chunk,  # [N + 1], or None
    scale,
    T,
    stride,  # elements of one of the four dscores
    H: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    C: tl.constexpr,
    LEVELS: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Gradients of q, k, a, b and g for one chunk, head and block of K."""
    i_ck, i_h = tl.program_id(0), tl.program_id(1)
    i_c, i_k = i_ck // tl.cdiv(K, BK), i_ck % tl.cdiv(K, BK)
    first, left = locate_chunk(i_c, cu_seqlens, sequence, first_chunk, T, C, PACKED)
    if left <= 0:
        return
    o_c, o_k = tl.arange(0, C), i_k * BK + tl.arange(0, BK)
    o_i, o_j = o_c[:, None], o_c[None, :]
    m_c, m_k = o_c < left, o_k < K
    row = first * H + i_h
    o_x, m_x = row * K + o_i * (H * K) + o_k[None, :], m_c[:, None] & m_k[None, :]
    v += row * V
    w += row * V
    do += row * V
    dy += row * V
    states += (i_c.to(tl.int64) * H + i_h) * K * V
    dstates += (i_c.to(tl.int64) * H + i_h) * K * V
    dscores_qk = dscores + row * C
    dscores_qb = dscores_qk + stride
    dscores_ak = dscores_qb + stride
    dscores_ab = dscores_ak + stride
    DTYPE: tl.constexpr = q.dtype.element_ty

    # Operands of the block of K, and the gradients of own scores
    b_q = tl.load(q + o_x, mask=m_x, other=0.0)
    b_k = tl.load(k + o_x, mask=m_x, other=0.0)
    b_a = tl.load(a + o_x, mask=m_x, other=0.0)
    b_b = tl.load(b + o_x, mask=m_x, other=0.0)
    b_g = load_decay(g + o_x, m_x)
    b_total = tl.exp2(tl.sum(b_g.to(tl.float32), 0) * LOG2E)
    b_own_k = tl.load(dscores_qk + o_c * (H * C + 1), mask=m_c, other=0.0).to(tl.float32)[:, None]
    b_own_b = tl.load(dscores_qb + o_c * (H * C + 1), mask=m_c, other=0.0).to(tl.float32)[:, None]

    # Gradient of q: through the state before the chunk, then through pairs of steps. One gradient is finished before
    # the next is begun, so that few accumulators are alive at a time.
    b_dq = through_states(do, H * V, states, o_i, o_k, m_c, m_k, V, BV, PRECISION) * scale
    if is_mild(b_g, o_i, C, DTYPE):
        o_s, m_lower, m_upper = o_i * (H * C) + o_j, m_c[:, None] & (o_i > o_j), m_c[:, None] & (o_i < o_j)
        b_m = from_middle(b_g, o_i, o_j, C, DTYPE, PRECISION)
        b_early, b_late = decays_of_halves(b_g, o_i, C)
        b_e = tl.exp2(-b_m * LOG2E)
        b_kw, b_bw = (b_k * b_e).to(DTYPE), (b_b * b_e).to(DTYPE)
        b_read = tl.exp2(b_m * LOG2E)
        b_qr = (b_q * b_read).to(DTYPE)
        b_dq *= b_early
        b_dq = tl.dot(tl.load(dscores_qk + o_s, mask=m_lower, other=0.0), b_kw, b_dq, input_precision=PRECISION)
        b_dq = tl.dot(tl.load(dscores_qb + o_s, mask=m_lower, other=0.0), b_bw, b_dq, input_precision=PRECISION)
        # Gradient of step t's log decay: what t and later steps read, less what they wrote, plus all that the chunk
        # hands on. Taken from the rounded operands of the products, so that a pair of steps after t cancels.
        b_later = b_qr * b_dq
        tl.store(dq + o_x, (b_dq * b_read + b_own_k * b_k + b_own_b * b_b).to(DTYPE), mask=m_x)

        # Gradient of a, which reads before its step's decay
        b_read = tl.exp2((b_m - b_g.to(tl.float32)) * LOG2E)
        b_ar = (b_a * b_read).to(DTYPE)
        b_da = through_states(dy, H * V, states, o_i, o_k, m_c, m_k, V, BV, PRECISION) * b_early
        b_da = tl.dot(tl.load(dscores_ak + o_s, mask=m_lower, other=0.0), b_kw, b_da, input_precision=PRECISION)
        b_da = tl.dot(tl.load(dscores_ab + o_s, mask=m_lower, other=0.0), b_bw, b_da, input_precision=PRECISION)
        # Each a reads before its step's own decay: take off what the sum over later steps has of it
        b_dg = -b_ar * b_da
        b_later -= b_dg
        tl.store(da + o_x, (b_da * b_read).to(DTYPE), mask=m_x)

        # Gradient of k: through the state after the chunk, then through pairs of steps
        b_dk, b_sds = through_states_grad(v, H * V, states, dstates, o_i, o_k, m_c, m_k, V, BV, PRECISION)
        b_dk *= b_late
        b_dg += (tl.sum(b_kw * b_dk, 0) + b_total * b_sds)[None, :]
        b_dk = tl.dot(tl.load(dscores_qk + o_s, mask=m_upper, other=0.0), b_qr, b_dk, input_precision=PRECISION)
        b_dk = tl.dot(tl.load(dscores_ak + o_s, mask=m_upper, other=0.0), b_ar, b_dk, input_precision=PRECISION)
        b_later -= b_kw * b_dk
        tl.store(dk + o_x, (b_dk * b_e + b_own_k * b_q).to(DTYPE), mask=m_x)

        # Gradient of b, likewise, and with it that of g
        b_db = through_states(w, H * V, dstates, o_i, o_k, m_c, m_k, V, BV, PRECISION) * b_late
        b_dg += tl.sum(b_bw * b_db, 0)[None, :]
        b_db = tl.dot(tl.load(dscores_qb + o_s, mask=m_upper, other=0.0), b_qr, b_db, input_precision=PRECISION)
        b_db = tl.dot(tl.load(dscores_ab + o_s, mask=m_upper, other=0.0), b_ar, b_db, input_precision=PRECISION)
        b_dg += span_sums(o_i <= o_j, b_later - b_bw * b_db, DTYPE, PRECISION)
        tl.store(db + o_x, (b_db * b_e + b_own_b * b_q).to(DTYPE), mask=m_x)
    else:
        # Decay that is not mild: gradients through the states, then through pairs of steps, level by level
        b_e = tl.exp2(span_sums(o_j > o_i, b_g, DTYPE, PRECISION) * LOG2E)
        b_dk, b_sds = through_states_grad(v, H * V, states, dstates, o_i, o_k, m_c, m_k, V, BV, PRECISION)
        b_dk *= b_e
        b_db = through_states(w, H * V, dstates, o_i, o_k, m_c, m_k, V, BV, PRECISION) * b_e
        b_dg = span_sums(o_j < o_i, (b_k * b_dk + b_b * b_db).to(DTYPE), DTYPE, PRECISION)
        b_dg += (b_total * b_sds)[None, :]
        b_dq *= tl.exp2(span_sums(o_j <= o_i, b_g, DTYPE, PRECISION) * LOG2E)
        b_dg += span_sums(o_i <= o_j, (b_q * b_dq).to(DTYPE), DTYPE, PRECISION)
        b_dq += b_own_k * b_k + b_own_b * b_b
        b_dk += b_own_k * b_q
        b_db += b_own_b * b_q
        b_dq, b_dk, b_dg = pair_sides_grad(
            q, k, dscores_qk, spans, b_dq, b_dk, b_dg, b_g, 1.0, o_i, o_j, o_x, m_x, m_c,
            C, H, LEVELS, DTYPE, PRECISION,
        )  # fmt: skip
        b_dq, b_db, b_dg = pair_sides_grad(
            q, b, dscores_qb, spans, b_dq, b_db, b_dg, b_g, 1.0, o_i, o_j, o_x, m_x, m_c,
            C, H, LEVELS, DTYPE, PRECISION,
        )  # fmt: skip
        tl.store(dq + o_x, b_dq.to(DTYPE), mask=m_x)
        # Gradient of a, which reads before its step's decay
        b_da = through_states(dy, H * V, states, o_i, o_k, m_c, m_k, V, BV, PRECISION)
        b_da *= tl.exp2(span_sums(o_j < o_i, b_g, DTYPE, PRECISION) * LOG2E)
        b_dg += span_sums(o_i < o_j, (b_a * b_da).to(DTYPE), DTYPE, PRECISION)
        b_da, b_dk, b_dg = pair_sides_grad(
            a, k, dscores_ak, spans_before, b_da, b_dk, b_dg, b_g, 1.0, o_i, o_j, o_x, m_x, m_c,
            C, H, LEVELS, DTYPE, PRECISION,
        )  # fmt: skip
        b_da, b_db, b_dg = pair_sides_grad(
            a, b, dscores_ab, spans_before, b_da, b_db, b_dg, b_g, 1.0, o_i, o_j, o_x, m_x, m_c,
            C, H, LEVELS, DTYPE, PRECISION,
        )  # fmt: skip
        tl.store(da + o_x, b_da.to(DTYPE), mask=m_x)
        tl.store(dk + o_x, b_dk.to(DTYPE), mask=m_x)
        tl.store(db + o_x, b_db.to(DTYPE), mask=m_x)
    tl.store(dg + o_x, b_dg.to(dg.dtype.element_ty), mask=m_x)
