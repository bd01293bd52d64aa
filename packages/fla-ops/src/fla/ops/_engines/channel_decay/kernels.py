"""Triton kernels of chunked gated linear attention; algorithm.py is the same algorithm in PyTorch.

Inside a chunk of C steps every exponent is a sum of log decays over some span of steps. A 0/1 matrix picks the
spans, so that one matrix product with the decays gives the exponents of a whole tile, and its transpose carries
their gradients back. No exponent is ever the difference of two sums. A chunk is halved down to single steps, so that
none is positive, unless its decay is so mild that all exponents may start at its middle.

Letters as in ``_shared/chunk_kernels.py``.
"""

import triton
import triton.language as tl

from fla.ops._shared.chunk_kernels import (
    LOG2E,
    decays_of_halves,
    from_middle,
    half_pairs,
    is_mild,
    load_decay,
    locate_chunk,
    locate_sequence,
    span_sums,
    span_sums_transposed,
    split_program,
    through_states,
    through_states_grad,
)


@triton.jit
def read_spans(o_i, o_t, BONUS: tl.constexpr):
    """[i, t]: whether step t decays the state that query i reads; with a bonus, i reads before its own decay."""
    if BONUS:
        spans = o_t < o_i
    else:
        spans = o_t <= o_i
    return spans


@triton.jit
def read_decays(b_m, b_g, BONUS):
    """Decay from the middle of the chunk to what each query reads: ``e^m``, without its own decay with a bonus."""
    if BONUS:
        b_m -= b_g.to(tl.float32)
    return tl.exp2(b_m * LOG2E)


@triton.jit(do_not_specialize=["T"])
def channel_decay_state_kernel(
    x,  # [B, T, H, K]: k, or q in reverse
    y,  # [B, T, H, V]: v, or do in reverse
    g,  # [B, T, H, K]: log decays
    states,  # [M, H, K, V]: before each chunk, or the gradient after it in reverse
    start,  # [N, H, K, V], or None
    end,  # [N, H, K, V]
    cu_seqlens,  # [N + 1], or None
    first_chunk,  # [N + 1], or None
    scale,
    T,
    H: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    C: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    HAS_START: tl.constexpr,
    REVERSE: tl.constexpr,
    BONUS: tl.constexpr,
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Carry the state over the chunks of one sequence and head, and store it before each chunk.

    Forward: x = k, y = v, ``S' = e^total S + sum_j (k_j e^suf_j) v_j^T``. In reverse: x = q, y = do, and S is the
    gradient of the state, ``dS' = e^total dS + sum_i (q_i e^pre_i) do_i^T``.
    """
    i_kv, i_nh = split_program(tl.cdiv(K, BK) * tl.cdiv(V, BV))
    i_k, i_v = i_kv // tl.cdiv(V, BV), i_kv % tl.cdiv(V, BV)
    i_n, i_h = i_nh // H, i_nh % H
    begin, length, i_first = locate_sequence(i_n, cu_seqlens, first_chunk, T, C, PACKED)
    chunks = tl.cdiv(length, C)

    o_k, o_v, o_c = i_k * BK + tl.arange(0, BK), i_v * BV + tl.arange(0, BV), tl.arange(0, C)
    m_k, m_v = o_k < K, o_v < V
    m_state = m_k[:, None] & m_v[None, :]
    o_state = o_k[:, None] * V + o_v[None, :]
    if not REVERSE:
        spans = o_c[:, None] > o_c[None, :]
    elif BONUS:
        spans = o_c[:, None] < o_c[None, :]
    else:
        spans = o_c[:, None] <= o_c[None, :]
    DTYPE: tl.constexpr = x.dtype.element_ty

    b_s = tl.zeros([BK, BV], dtype=tl.float32)
    if HAS_START:
        b_s += tl.load(start + i_nh.to(tl.int64) * K * V + o_state, mask=m_state, other=0.0).to(tl.float32)
    for i in range(0, chunks):
        i_c = chunks - 1 - i if REVERSE else i
        tl.store(states + ((i_first + i_c) * H + i_h) * K * V + o_state, b_s.to(DTYPE), mask=m_state)
        m_c = i_c * C + o_c < length
        first = (begin + i_c * C) * H + i_h
        row = o_c * H
        m_x = m_k[:, None] & m_c[None, :]
        b_x = tl.load(x + first * K + row[None, :] * K + o_k[:, None], mask=m_x, other=0.0)
        b_g = load_decay(g + first * K + row[None, :] * K + o_k[:, None], m_x)
        b_y = tl.load(y + first * V + row[:, None] * V + o_v[None, :], mask=m_c[:, None] & m_v[None, :], other=0.0)
        b_e = tl.exp2(span_sums_transposed(b_g, spans, DTYPE, PRECISION) * LOG2E)
        b_total = tl.exp2(tl.sum(b_g.to(tl.float32), 1) * LOG2E)
        b_x = (b_x * b_e * scale).to(DTYPE)
        b_s = b_s * b_total[:, None] + tl.dot(b_x, b_y, input_precision=PRECISION)
    tl.store(end + i_nh.to(tl.int64) * K * V + o_state, b_s, mask=m_state)


@triton.jit(do_not_specialize=["T"])
def channel_decay_output_fwd_kernel(
    q,  # [B, T, H, K]
    k,  # [B, T, H, K]
    v,  # [B, T, H, V]
    g,  # [B, T, H, K]: log decays
    u,  # [H, K]: the bonus, or None
    spans,  # [LEVELS, C, C]: 0 or 1
    states,  # [M, H, K, V]: before each chunk
    o,  # [B, T, H, V]
    scores,  # [B, T, H, C], empty unless STORE_SCORES
    cu_seqlens,  # [N + 1], or None
    sequence,  # [M], or None
    first_chunk,  # [N + 1], or None
    scale,
    T,
    H: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    C: tl.constexpr,
    LEVELS: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    STORE_SCORES: tl.constexpr,
    BONUS: tl.constexpr,
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """``o_i = scale (q_i e^pre_i) S + sum_{j <= i} A_ij v_j`` for one chunk, head and block of V."""
    i_cv, i_h = tl.program_id(0), tl.program_id(1)
    i_c, i_v = i_cv // tl.cdiv(V, BV), i_cv % tl.cdiv(V, BV)
    first, left = locate_chunk(i_c, cu_seqlens, sequence, first_chunk, T, C, PACKED)
    if left <= 0:
        return
    o_c, o_v = tl.arange(0, C), i_v * BV + tl.arange(0, BV)
    o_i, o_j = o_c[:, None], o_c[None, :]
    m_c, m_v = o_c < left, o_v < V
    row = o_c * H
    q += (first * H + i_h) * K
    k += (first * H + i_h) * K
    g += (first * H + i_h) * K
    v += (first * H + i_h) * V
    o += (first * H + i_h) * V
    scores += (first * H + i_h) * C
    states += (i_c.to(tl.int64) * H + i_h) * K * V
    DTYPE: tl.constexpr = q.dtype.element_ty

    # Reads of the state and scores of the chunk, summed over blocks of K
    b_o = tl.zeros([C, BV], dtype=tl.float32)
    b_a = tl.zeros([C, C], dtype=tl.float32)
    b_diagonal = tl.zeros([C], dtype=tl.float32)
    for i_k in range(0, tl.cdiv(K, BK)):
        o_k = i_k * BK + tl.arange(0, BK)
        m_k = o_k < K
        m_x = m_c[:, None] & m_k[None, :]
        o_x = row[:, None] * K + o_k[None, :]
        b_q = tl.load(q + o_x, mask=m_x, other=0.0)
        b_k = tl.load(k + o_x, mask=m_x, other=0.0)
        b_g = load_decay(g + o_x, m_x)
        b_s = tl.load(states + o_k[:, None] * V + o_v[None, :], mask=m_k[:, None] & m_v[None, :], other=0.0)

        # Own scores, which no decay enters
        b_qk = b_q.to(tl.float32) * b_k.to(tl.float32)
        if BONUS:
            b_qk *= tl.load(u + i_h * K + o_k, mask=m_k, other=0.0).to(tl.float32)[None, :]
        b_diagonal += tl.sum(b_qk, 1)
        # Mild decay: one product from the chunk's middle. Else: one product for each level of halving.
        if is_mild(b_g, o_i, C, DTYPE):
            b_m = from_middle(b_g, o_i, o_j, C, DTYPE, PRECISION)
            b_early, b_late = decays_of_halves(b_g, o_i, C)
            b_kt = tl.trans((b_k * tl.exp2(-b_m * LOG2E)).to(DTYPE))
            b_x = b_q * read_decays(b_m, b_g, BONUS)
            b_a += tl.dot(b_x.to(DTYPE), b_kt, input_precision=PRECISION)
            b_read = (b_x * b_early).to(DTYPE)
        else:
            b_e = tl.exp2(span_sums(read_spans(o_i, o_j, BONUS), b_g, DTYPE, PRECISION) * LOG2E)
            b_read = (b_q * b_e).to(DTYPE)
            for level in range(LEVELS):
                b_e = tl.exp2(span_sums(tl.load(spans + level * C * C + o_i * C + o_j), b_g, DTYPE, PRECISION) * LOG2E)
                m_late = ((o_i >> level) & 1) == 1
                b_x = (tl.where(m_late, b_q, b_k) * b_e).to(DTYPE)
                b_pairs = tl.dot(b_x, tl.trans(b_x), input_precision=PRECISION)
                b_a += tl.where(half_pairs(o_i, o_j, level) & (o_i > o_j), b_pairs, 0.0)
        b_o += tl.dot(b_read, b_s, input_precision=PRECISION)

    # Reads of the chunk's own values
    b_a = tl.where(o_i > o_j, b_a, tl.where(o_i == o_j, b_diagonal[:, None], 0.0)) * scale
    b_v = tl.load(v + row[:, None] * V + o_v[None, :], mask=m_c[:, None] & m_v[None, :], other=0.0)
    b_o = b_o * scale + tl.dot(b_a.to(DTYPE), b_v, input_precision=PRECISION)
    tl.store(o + row[:, None] * V + o_v[None, :], b_o.to(DTYPE), mask=m_c[:, None] & m_v[None, :])
    if STORE_SCORES:
        if i_v == 0:
            tl.store(scores + row[:, None] * C + o_j, b_a.to(DTYPE), mask=m_c[:, None])


@triton.jit(do_not_specialize=["T"])
def channel_decay_value_bwd_kernel(
    k,  # [B, T, H, K]
    g,  # [B, T, H, K]: log decays
    scores,  # [B, T, H, C]
    do,  # [B, T, H, V]
    dstates,  # [M, H, K, V]: after each chunk
    dv,  # [B, T, H, V]
    cu_seqlens,  # [N + 1], or None
    sequence,  # [M], or None
    first_chunk,  # [N + 1], or None
    T,
    H: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    C: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """``dv_j = sum_{i >= j} A_ij do_i + (k_j e^suf_j) dS`` for one chunk, head and block of V."""
    i_cv, i_h = tl.program_id(0), tl.program_id(1)
    i_c, i_v = i_cv // tl.cdiv(V, BV), i_cv % tl.cdiv(V, BV)
    first, left = locate_chunk(i_c, cu_seqlens, sequence, first_chunk, T, C, PACKED)
    if left <= 0:
        return
    o_c, o_v = tl.arange(0, C), i_v * BV + tl.arange(0, BV)
    m_c, m_v = o_c < left, o_v < V
    row = o_c * H
    k += (first * H + i_h) * K
    g += (first * H + i_h) * K
    scores += (first * H + i_h) * C
    do += (first * H + i_h) * V
    dv += (first * H + i_h) * V
    m_y = m_c[:, None] & m_v[None, :]
    dstates += (i_c.to(tl.int64) * H + i_h) * K * V
    DTYPE: tl.constexpr = k.dtype.element_ty

    b_a = tl.load(scores + row[None, :] * C + o_c[:, None], mask=m_c[None, :], other=0.0)
    b_do = tl.load(do + row[:, None] * V + o_v[None, :], mask=m_y, other=0.0)
    b_dv = tl.dot(b_a, b_do, input_precision=PRECISION)
    for i_k in range(0, tl.cdiv(K, BK)):
        o_k = i_k * BK + tl.arange(0, BK)
        m_k = o_k < K
        m_x = m_c[:, None] & m_k[None, :]
        b_k = tl.load(k + row[:, None] * K + o_k[None, :], mask=m_x, other=0.0)
        b_g = load_decay(g + row[:, None] * K + o_k[None, :], m_x)
        b_ds = tl.load(dstates + o_k[:, None] * V + o_v[None, :], mask=m_k[:, None] & m_v[None, :], other=0.0)
        b_e = tl.exp2(span_sums(o_c[None, :] > o_c[:, None], b_g, DTYPE, PRECISION) * LOG2E)
        b_dv += tl.dot((b_k * b_e).to(DTYPE), b_ds, input_precision=PRECISION)
    tl.store(dv + row[:, None] * V + o_v[None, :], b_dv.to(DTYPE), mask=m_y)


@triton.jit(do_not_specialize=["T"])
def channel_decay_key_bwd_kernel(
    q,  # [B, T, H, K], or None where ONLY_Q
    k,  # [B, T, H, K]
    v,  # [B, T, H, V]
    g,  # [B, T, H, K]: log decays
    u,  # [H, K]: the bonus, or None
    spans,  # [LEVELS, C, C]: 0 or 1
    states,  # [M, H, K, V]: before each chunk
    do,  # [B, T, H, V]
    dstates,  # [M, H, K, V]: after each chunk, or None where ONLY_Q
    dq,  # [B, T, H, K]
    dk,  # [B, T, H, K], or None where ONLY_Q
    dg,  # [B, T, H, K], or None where ONLY_Q
    du,  # [M, H, K], or None without u
    cu_seqlens,  # [N + 1], or None
    sequence,  # [M], or None
    first_chunk,  # [N + 1], or None
    scale,
    T,
    H: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    C: tl.constexpr,
    LEVELS: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    BONUS: tl.constexpr,
    ONLY_Q: tl.constexpr,
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Gradients of q, k and g, or of q only, for one chunk, head and block of K; that of u summed over the chunk.

    ``ONLY_Q``: the gradient of q, which is also the output where values decay (``value_decay_ops.py``). It reads no q.
    """
    i_ck, i_h = tl.program_id(0), tl.program_id(1)
    i_c, i_k = i_ck // tl.cdiv(K, BK), i_ck % tl.cdiv(K, BK)
    first, left = locate_chunk(i_c, cu_seqlens, sequence, first_chunk, T, C, PACKED)
    if left <= 0:
        return
    o_c, o_k = tl.arange(0, C), i_k * BK + tl.arange(0, BK)
    o_i, o_j = o_c[:, None], o_c[None, :]
    m_c, m_k = o_c < left, o_k < K
    row = o_c * H
    k += (first * H + i_h) * K
    g += (first * H + i_h) * K
    dq += (first * H + i_h) * K
    if not ONLY_Q:
        q += (first * H + i_h) * K
        dk += (first * H + i_h) * K
        dg += (first * H + i_h) * K
        dstates += (i_c.to(tl.int64) * H + i_h) * K * V
    v += (first * H + i_h) * V
    do += (first * H + i_h) * V
    m_x = m_c[:, None] & m_k[None, :]
    o_x = row[:, None] * K + o_k[None, :]
    states += (i_c.to(tl.int64) * H + i_h) * K * V
    DTYPE: tl.constexpr = k.dtype.element_ty

    # Gradient of the scores and its transpose, summed over blocks of V
    b_da = tl.zeros([C, C], dtype=tl.float32)
    b_dat = tl.zeros([C, C], dtype=tl.float32)
    for i_v in range(0, tl.cdiv(V, BV)):
        o_v = i_v * BV + tl.arange(0, BV)
        m_v = o_v < V
        o_y, m_y = row[:, None] * V + o_v[None, :], m_c[:, None] & m_v[None, :]
        o_yt, m_yt = row[None, :] * V + o_v[:, None], m_v[:, None] & m_c[None, :]
        b_do = tl.load(do + o_y, mask=m_y, other=0.0)
        b_vt = tl.load(v + o_yt, mask=m_yt, other=0.0)
        b_da += tl.dot(b_do, b_vt, input_precision=PRECISION)
        if not ONLY_Q:
            b_v = tl.load(v + o_y, mask=m_y, other=0.0)
            b_dot = tl.load(do + o_yt, mask=m_yt, other=0.0)
            b_dat += tl.dot(b_v, b_dot, input_precision=PRECISION)
    # Gradient of own scores; the transpose goes above the diagonal of the others
    b_own = (tl.sum(tl.where(o_i == o_j, b_da, 0.0), 1) * scale)[:, None]
    b_da = (tl.where(o_i > o_j, b_da, b_dat) * scale).to(DTYPE)
    b_p = tl.where(o_i > o_j, b_da, 0.0).to(DTYPE)

    # Keys, decays and bonus of the block of K
    b_k = tl.load(k + o_x, mask=m_x, other=0.0)
    b_g = load_decay(g + o_x, m_x)
    if BONUS:
        b_u = tl.load(u + i_h * K + o_k, mask=m_k, other=0.0).to(tl.float32)[None, :]
    else:
        b_u = tl.full([1, BK], 1.0, dtype=tl.float32)
    mild = is_mild(b_g, o_i, C, DTYPE)
    b_m = from_middle(b_g, o_i, o_j, C, DTYPE, PRECISION)
    b_early, b_late = decays_of_halves(b_g, o_i, C)

    # Gradient of q: through the state before the chunk, then through pairs of steps. One gradient is finished before
    # the next is begun, so that few accumulators are alive at a time.
    b_dq = through_states(do, H * V, states, o_i, o_k, m_c, m_k, V, BV, PRECISION) * scale
    if mild:
        b_y = (b_k * tl.exp2(-b_m * LOG2E)).to(DTYPE)
        b_dq = tl.dot(b_p, b_y, b_dq * b_early, input_precision=PRECISION)
    else:
        b_dq *= tl.exp2(span_sums(read_spans(o_i, o_j, BONUS), b_g, DTYPE, PRECISION) * LOG2E)
    # Finish dq alone, or with it the gradients of u, k and g
    if ONLY_Q:
        if mild:
            b_dq *= read_decays(b_m, b_g, BONUS)
        else:
            for level in range(LEVELS):
                b_e = tl.exp2(span_sums(tl.load(spans + level * C * C + o_i * C + o_j), b_g, DTYPE, PRECISION) * LOG2E)
                b_w = tl.where(half_pairs(o_i, o_j, level), b_p, 0.0).to(DTYPE)
                b_dq += tl.dot(b_w, (b_k * b_e).to(DTYPE), input_precision=PRECISION) * b_e
        tl.store(dq + o_x, (b_dq + b_own * b_k * b_u).to(dq.dtype.element_ty), mask=m_x)
    else:
        b_q = tl.load(q + o_x, mask=m_x, other=0.0)
        if BONUS:
            b_du = tl.sum(b_own * b_q.to(tl.float32) * b_k.to(tl.float32), 0)
            tl.store(du + (i_c.to(tl.int64) * H + i_h) * K + o_k, b_du, mask=m_k)
        b_total = tl.exp2(tl.sum(b_g.to(tl.float32), 0) * LOG2E)
        if mild:
            b_e = read_decays(b_m, b_g, BONUS)
            b_x = (b_q * b_e).to(DTYPE)
            # Gradient of step t's log decay: what t and later steps read, less what they wrote, plus all that the chunk
            # hands on. Taken from the rounded operands of the products, so that a pair of steps after t cancels.
            b_later = b_x * b_dq
            tl.store(dq + o_x, (b_dq * b_e + b_own * b_k * b_u).to(dq.dtype.element_ty), mask=m_x)
            # Gradient of k: through the state after the chunk, then through pairs of steps
            b_dk, b_sds = through_states_grad(v, H * V, states, dstates, o_i, o_k, m_c, m_k, V, BV, PRECISION)
            b_dk *= b_late
            b_e = tl.exp2(-b_m * LOG2E)
            b_y = (b_k * b_e).to(DTYPE)
            b_dg = (tl.sum(b_y * b_dk, 0) + b_total * b_sds)[None, :]
            b_pt = tl.where(o_i < o_j, b_da, 0.0).to(DTYPE)
            b_dk = tl.dot(b_pt, b_x, b_dk, input_precision=PRECISION)
            b_dg += span_sums(o_i <= o_j, b_later - b_y * b_dk, DTYPE, PRECISION)
            b_dk *= b_e
            if BONUS:
                b_dg -= b_later
        else:
            # Gradients through the states, then through pairs of steps, level by level
            b_dk, b_sds = through_states_grad(v, H * V, states, dstates, o_i, o_k, m_c, m_k, V, BV, PRECISION)
            b_dk *= tl.exp2(span_sums(o_j > o_i, b_g, DTYPE, PRECISION) * LOG2E)
            b_dg = span_sums(read_spans(o_j, o_i, BONUS), (b_q * b_dq).to(DTYPE), DTYPE, PRECISION)
            b_dg += span_sums(o_j < o_i, (b_k * b_dk).to(DTYPE), DTYPE, PRECISION) + (b_total * b_sds)[None, :]
            for level in range(LEVELS):
                b_e = tl.exp2(span_sums(tl.load(spans + level * C * C + o_i * C + o_j), b_g, DTYPE, PRECISION) * LOG2E)
                m_late = ((o_i >> level) & 1) == 1
                b_x = tl.load(tl.where(m_late, q + o_x, k + o_x), mask=m_x, other=0.0) * b_e
                b_w = tl.where(half_pairs(o_i, o_j, level), b_da, 0.0).to(DTYPE)
                b_dx = tl.dot(b_w, b_x.to(DTYPE), input_precision=PRECISION)
                b_dqk = b_dx * b_e
                b_dq += tl.where(m_late, b_dqk, 0.0)
                b_dk += tl.where(m_late, 0.0, b_dqk)
                p_st = spans + level * C * C + o_j * C + o_i
                b_dg += span_sums(tl.load(p_st), (b_x * b_dx).to(DTYPE), DTYPE, PRECISION)
            tl.store(dq + o_x, (b_dq + b_own * b_k * b_u).to(dq.dtype.element_ty), mask=m_x)
        tl.store(dk + o_x, (b_dk + b_own * b_q * b_u).to(DTYPE), mask=m_x)
        tl.store(dg + o_x, b_dg.to(dg.dtype.element_ty), mask=m_x)
