"""Triton kernels of the gradients of queries and keys under weights of degree two: see ``kernels.py``."""

import triton
import triton.language as tl

from fla.ops._engines.second_order.kernels import load_inverse, pairs, pick, weights_of
from fla.ops._shared.chunk_kernels import halves, locate_chunk, through_states


@triton.jit
def put(b_df, b_xa, b_xb, o_a, o_b, BD: tl.constexpr, DTYPE: tl.constexpr, PRECISION: tl.constexpr):
    """The gradient of scale x [C, BD] from that of its weighted products [C, BF]: each to both of its channels."""
    o_d = tl.arange(0, BD)[None, :]
    b_put_a, b_put_b = (o_a[:, None] == o_d).to(DTYPE), (o_b[:, None] == o_d).to(DTYPE)
    b_dx = tl.dot((b_df * b_xb).to(DTYPE), b_put_a, input_precision=PRECISION)
    return b_dx + tl.dot((b_df * b_xa).to(DTYPE), b_put_b, input_precision=PRECISION)


@triton.jit
def slopes_of(b_s, TAYLOR: tl.constexpr):
    """The derivative of :func:`fla.ops._engines.second_order.kernels.weights_of`."""
    return b_s + 1.0 if TAYLOR else b_s


@triton.jit
def dot_accurate(b_g, b_x, PRECISION: tl.constexpr):
    """``g @ x`` for a float32 g, whose terms may cancel: g is split in hi and lo where x is 16-bit."""
    hi, lo = halves(b_g, b_x.dtype)
    b = tl.dot(hi, b_x, input_precision=PRECISION)
    if b_x.dtype != tl.float32:
        b += tl.dot(lo, b_x, input_precision=PRECISION)
    return b


@triton.jit
def products(x, y, stride, o_i, o_j, m_c, V: tl.constexpr, C: tl.constexpr, BV: tl.constexpr, PRECISION: tl.constexpr):
    """``x_i.y_j`` over all of V for the steps of a chunk, which lie ``stride`` apart."""
    b = tl.zeros([C, C], dtype=tl.float32)
    for i_v in range(0, tl.cdiv(V, BV)):
        o_v = i_v * BV + tl.arange(0, BV)
        m_v = o_v < V
        b_x = tl.load(x + o_i * stride + o_v[None, :], mask=m_c[:, None] & m_v[None, :], other=0.0)
        b_yt = tl.load(y + o_j * stride + o_v[:, None], mask=m_v[:, None] & m_c[None, :], other=0.0)
        b += tl.dot(b_x, b_yt, input_precision=PRECISION)
    return b


@triton.jit(do_not_specialize=["T"])
def second_order_query_bwd_kernel(
    q,  # [B, T, H, K]
    k,  # [B, T, H, K]
    v,  # [B, T, H, V]
    totals,  # [B, T, H]
    dtotals,  # [B, T, H]: written where NORMALIZE, else read
    states,  # [M, H, F, V]: S before each chunk
    sums,  # [M, H, F]: z before each chunk
    do,  # [B, T, H, V]
    dq,  # [B, T, H, K]
    cu_seqlens,  # [N + 1], or None
    sequence,  # [M], or None
    first_chunk,  # [N + 1], or None
    scale,
    eps,
    T,
    H: tl.constexpr,
    K: tl.constexpr,
    F: tl.constexpr,
    V: tl.constexpr,
    C: tl.constexpr,
    BD: tl.constexpr,
    BF: tl.constexpr,
    BV: tl.constexpr,
    TAYLOR: tl.constexpr,
    NORMALIZE: tl.constexpr,
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Gradients of q for one chunk and head; and with ``NORMALIZE`` those of totals, which are read otherwise.

    ``dt_i = -n_i.do_i / (t_i + eps)^2``, and ``dw_ij = do_i.v_j / (t_i + eps) + dt_i``. The two terms of dw may cancel
    where t is small. So both come from the same sums, neither from o, which is rounded already, and they are added
    before they are rounded. They are divided before that too, because sums over long sequences may pass float16's
    range. They also cancel where values have much in common, and so the states are float32 here.
    """
    i_c, i_h = tl.program_id(0), tl.program_id(1)
    first, left = locate_chunk(i_c, cu_seqlens, sequence, first_chunk, T, C, PACKED)
    if left <= 0:
        return
    o_c, o_d = tl.arange(0, C), tl.arange(0, BD)
    o_i, o_j = o_c[:, None], o_c[None, :]
    m_c, m_d = o_c < left, o_d < K
    row = first * H + i_h
    states += (i_c.to(tl.int64) * H + i_h) * F * V
    sums += (i_c.to(tl.int64) * H + i_h) * F
    DTYPE: tl.constexpr = q.dtype.element_ty

    # Scores of the chunk, and the gradients of its weights
    o_x, m_x = row * K + o_i * (H * K) + o_d[None, :], m_c[:, None] & m_d[None, :]
    b_q = tl.load(q + o_x, mask=m_x, other=0.0)
    p_kt = k + row * K + o_j * (H * K) + o_d[:, None]
    b_kt = tl.load(p_kt, mask=m_d[:, None] & m_c[None, :], other=0.0)
    b_s = tl.dot(b_q, b_kt, input_precision=PRECISION) * scale
    b_dw = products(do + row * V, v + row * V, H * V, o_i, o_j, m_c, V, C, BV, PRECISION)
    b_inverse = load_inverse(totals + row, o_c, m_c, eps, H, NORMALIZE)
    # Gradient of the totals: n_i.do_i from the chunk's own steps, then through the features
    if NORMALIZE:
        b_ndo = tl.sum(tl.where(o_i >= o_j, weights_of(b_s, TAYLOR) * b_dw, 0.0), 1)
        for i_f in range(0, tl.cdiv(F, BF)):
            o_f = i_f * BF + tl.arange(0, BF)
            o_a, o_b, b_weight = pairs(o_f, K, TAYLOR)
            b_f = pick(b_q, o_a, scale, BD, PRECISION) * pick(b_q, o_b, scale, BD, PRECISION) * b_weight[None, :]
            b_df = through_states(do + row * V, H * V, states, o_i, o_f, m_c, o_f < F, V, BV, PRECISION)
            b_ndo += tl.sum(b_f * b_df, 1)
        # Leave out one division, as dw does here
        b_dt = -b_ndo * b_inverse
        tl.store(dtotals + row + o_c * H, b_dt * b_inverse, mask=m_c)
    else:
        b_dt = tl.load(dtotals + row + o_c * H, mask=m_c, other=0.0)

    # Gradient of q: through the chunk's own scores, then through the features
    b_ds = tl.where(o_i >= o_j, (b_dw + b_dt[:, None]) * b_inverse[:, None] * slopes_of(b_s, TAYLOR), 0.0)
    b_dq = dot_accurate(b_ds, tl.load(k + o_x, mask=m_x, other=0.0), PRECISION)
    for i_f in range(0, tl.cdiv(F, BF)):
        o_f = i_f * BF + tl.arange(0, BF)
        m_f = o_f < F
        o_a, o_b, b_weight = pairs(o_f, K, TAYLOR)
        b_df = through_states(do + row * V, H * V, states, o_i, o_f, m_c, m_f, V, BV, PRECISION)
        b_df += b_dt[:, None] * tl.load(sums + o_f, mask=m_f, other=0.0)[None, :]
        b_df *= b_inverse[:, None] * b_weight[None, :]
        b_qa, b_qb = pick(b_q, o_a, scale, BD, PRECISION), pick(b_q, o_b, scale, BD, PRECISION)
        b_dq += put(b_df, b_qa, b_qb, o_a, o_b, BD, DTYPE, PRECISION)
    tl.store(dq + o_x, (b_dq * scale).to(DTYPE), mask=m_x)


@triton.jit(do_not_specialize=["T"])
def second_order_key_bwd_kernel(
    q,  # [B, T, H, K]
    k,  # [B, T, H, K]
    v,  # [B, T, H, V]
    totals,  # [B, T, H]
    dtotals,  # [B, T, H]: read
    dstates,  # [M, H, F, V]: after each chunk
    dsums,  # [M, H, F]: after each chunk
    do,  # [B, T, H, V]
    dk,  # [B, T, H, K]
    cu_seqlens,  # [N + 1], or None
    sequence,  # [M], or None
    first_chunk,  # [N + 1], or None
    scale,
    eps,
    T,
    H: tl.constexpr,
    K: tl.constexpr,
    F: tl.constexpr,
    V: tl.constexpr,
    C: tl.constexpr,
    BD: tl.constexpr,
    BF: tl.constexpr,
    BV: tl.constexpr,
    TAYLOR: tl.constexpr,
    NORMALIZE: tl.constexpr,
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Gradients of k for one chunk and head, given those of totals; scores are [j, i] here."""
    i_c, i_h = tl.program_id(0), tl.program_id(1)
    first, left = locate_chunk(i_c, cu_seqlens, sequence, first_chunk, T, C, PACKED)
    if left <= 0:
        return
    o_c, o_d = tl.arange(0, C), tl.arange(0, BD)
    o_i, o_j = o_c[None, :], o_c[:, None]
    m_c, m_d = o_c < left, o_d < K
    row = first * H + i_h
    dstates += (i_c.to(tl.int64) * H + i_h) * F * V
    dsums += (i_c.to(tl.int64) * H + i_h) * F
    DTYPE: tl.constexpr = q.dtype.element_ty

    # Gradient of k through the features
    o_x, m_x = row * K + o_j * (H * K) + o_d[None, :], m_c[:, None] & m_d[None, :]
    b_k = tl.load(k + o_x, mask=m_x, other=0.0)
    b_dk = tl.zeros([C, BD], dtype=tl.float32)
    for i_f in range(0, tl.cdiv(F, BF)):
        o_f = i_f * BF + tl.arange(0, BF)
        m_f = o_f < F
        o_a, o_b, b_weight = pairs(o_f, K, TAYLOR)
        b_ka, b_kb = pick(b_k, o_a, 1.0, BD, PRECISION), pick(b_k, o_b, 1.0, BD, PRECISION)
        b_df = through_states(v + row * V, H * V, dstates, o_j, o_f, m_c, m_f, V, BV, PRECISION)
        b_df = (b_df + tl.load(dsums + o_f, mask=m_f, other=0.0)[None, :]) * b_weight[None, :]
        b_dk += put(b_df, b_ka, b_kb, o_a, o_b, BD, DTYPE, PRECISION)

    # Gradient of k through the chunk's own scores
    b_q = tl.load(q + o_x, mask=m_x, other=0.0)
    p_qt = q + row * K + o_i * (H * K) + o_d[:, None]
    b_qt = tl.load(p_qt, mask=m_d[:, None] & m_c[None, :], other=0.0)
    b_s = tl.dot(b_k, b_qt, input_precision=PRECISION) * scale
    b_dw = products(v + row * V, do + row * V, H * V, o_j, o_i, m_c, V, C, BV, PRECISION)
    b_dw *= load_inverse(totals + row, o_c, m_c, eps, H, NORMALIZE)[None, :]
    b_dw += tl.load(dtotals + row + o_c * H, mask=m_c, other=0.0)[None, :]
    b_ds = tl.where(o_j <= o_i, b_dw * slopes_of(b_s, TAYLOR) * scale, 0.0)
    b_dk += dot_accurate(b_ds, b_q, PRECISION)
    tl.store(dk + o_x, b_dk.to(DTYPE), mask=m_x)
