"""Triton kernels of linear attention whose weights are polynomials of degree two of scores.

``s_ij = scale q_i.k_j`` and ``w_ij = s_ij^2 / 2``, with ``1 + s_ij`` more where ``TAYLOR``. Between steps of one chunk
weights are taken from scores as they are, so the few weights that a sequence starts with are as good as their scores
however small they are; only what came before the chunk is read through features ``w_ij = f(scale q_i).f(k_j)``, the
state ``S = sum_j f(k_j) v_j^T`` and the sum ``z = sum_j f(k_j)``. With ``NORMALIZE``, ``o_i = n_i / (t_i + eps)``,
``t_i = sum_j w_ij`` and ``n_i = sum_j w_ij v_j``, where t and z are float32 throughout.

Features never go to memory: each is a product of two channels, which products with 0/1 matrices pick; that is exact.
Their order is that of ``features.py``. Further letters, beside those of ``_shared/chunk_kernels.py``: F features, and
f one of them; BD at least K.
"""

import triton
import triton.language as tl

from fla.ops._shared.chunk_kernels import locate_chunk, locate_sequence, split_program

ROOT_HALF = tl.constexpr(0.7071067811865476)


@triton.jit
def pairs(o_f, K: tl.constexpr, TAYLOR: tl.constexpr):
    """The two channels of each feature, -1 for the constant one, and the weight of their product."""
    D: tl.constexpr = K + 1 if TAYLOR else K
    row, o_a = o_f // D, o_f % D
    o_b = (o_a + row) % D
    b_weight = tl.where((row == 0) | (2 * row == D), ROOT_HALF, 1.0)
    b_weight = tl.where(row <= D // 2, b_weight, 0.0)
    if TAYLOR:
        b_weight = tl.where(o_f == 0, 1.0, b_weight)
        o_a -= 1
        o_b -= 1
    return o_a, o_b, b_weight


@triton.jit
def pick(b_x, o_a, scale, BD: tl.constexpr, PRECISION: tl.constexpr):
    """[c, f]: channel ``o_a[f]`` of scale x, for x [C, BD]."""
    b_pick = (tl.arange(0, BD)[:, None] == o_a[None, :]).to(b_x.dtype)
    return tl.dot(b_x, b_pick, input_precision=PRECISION) * scale + tl.where(o_a < 0, 1.0, 0.0)[None, :]


@triton.jit
def pick_transposed(b_xt, o_a, scale, BD: tl.constexpr, PRECISION: tl.constexpr):
    """[f, c] of :func:`pick`, for the transpose of x [BD, C]."""
    b_pick = (o_a[:, None] == tl.arange(0, BD)[None, :]).to(b_xt.dtype)
    return tl.dot(b_pick, b_xt, input_precision=PRECISION) * scale + tl.where(o_a < 0, 1.0, 0.0)[:, None]


@triton.jit
def weights_of(b_s, TAYLOR: tl.constexpr):
    """The weights of scores."""
    return 0.5 * b_s * b_s + b_s + 1.0 if TAYLOR else 0.5 * b_s * b_s


@triton.jit
def load_inverse(totals, o_c, m_c, eps, H: tl.constexpr, NORMALIZE: tl.constexpr):
    """The factor that normalises each step's sums, ``1 / (t + eps)`` or 1; 0 outside the mask."""
    if NORMALIZE:
        b_inverse = 1.0 / (tl.load(totals + o_c * H, mask=m_c, other=1.0) + eps)
    else:
        b_inverse = tl.full([o_c.shape[0]], 1.0, dtype=tl.float32)
    return tl.where(m_c, b_inverse, 0.0)


@triton.jit(do_not_specialize=["T"])
def second_order_state_kernel(
    x,  # [B, T, H, K]: k, or q in reverse
    y,  # [B, T, H, V]: v, or do in reverse
    totals,  # [B, T, H] in reverse, else None
    dtotals,  # [B, T, H] in reverse, else None
    states,  # [M, H, F, V]: S before each chunk, or its gradient after it in reverse
    sums,  # [M, H, F]: z, likewise
    start,  # [N, H, F, V], or None
    start_sum,  # [N, H, F], or None
    end,  # [N, H, F, V]
    end_sum,  # [N, H, F]
    cu_seqlens,  # [N + 1], or None
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
    HAS_START: tl.constexpr,
    REVERSE: tl.constexpr,
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Carry S and z over the chunks of one sequence and head, and store them before each chunk.

    Forward: x = k, y = v, ``S' = S + sum_j f(k_j) v_j^T``, ``z' = z + sum_j f(k_j)``. In reverse: x = q, y = do, and
    these are gradients, ``dS' = dS + sum_i f(scale q_i) do_i^T / (t_i + eps)``, ``dz' = dz + sum_i f(scale q_i) dt_i``.
    """
    i_fv, i_nh = split_program(tl.cdiv(F, BF) * tl.cdiv(V, BV))
    i_f, i_v = i_fv // tl.cdiv(V, BV), i_fv % tl.cdiv(V, BV)
    i_n, i_h = i_nh // H, i_nh % H
    begin, length, i_first = locate_sequence(i_n, cu_seqlens, first_chunk, T, C, PACKED)
    chunks = tl.cdiv(length, C)

    o_f, o_v, o_c = i_f * BF + tl.arange(0, BF), i_v * BV + tl.arange(0, BV), tl.arange(0, C)
    o_d = tl.arange(0, BD)
    m_f, m_v, m_d = o_f < F, o_v < V, o_d < K
    m_state = m_f[:, None] & m_v[None, :]
    o_state = o_f[:, None] * V + o_v[None, :]
    DTYPE: tl.constexpr = x.dtype.element_ty
    o_a, o_b, b_weight = pairs(o_f, K, TAYLOR)

    b_s = tl.zeros([BF, BV], dtype=tl.float32)
    b_z = tl.zeros([BF], dtype=tl.float32)
    if HAS_START:
        b_s += tl.load(start + i_nh.to(tl.int64) * F * V + o_state, mask=m_state, other=0.0).to(tl.float32)
        b_z += tl.load(start_sum + i_nh.to(tl.int64) * F + o_f, mask=m_f, other=0.0).to(tl.float32)
    for i in range(0, chunks):
        i_c = chunks - 1 - i if REVERSE else i
        row = (i_first + i_c) * H + i_h
        tl.store(states + row * F * V + o_state, b_s.to(states.dtype.element_ty), mask=m_state)
        if i_v == 0:
            tl.store(sums + row * F + o_f, b_z, mask=m_f)
        first = (begin + i_c * C) * H + i_h
        m_c = o_c < length - i_c * C
        p_xt = x + first * K + o_c[None, :] * (H * K) + o_d[:, None]
        p_y = y + first * V + o_c[:, None] * (H * V) + o_v[None, :]
        b_xt = tl.load(p_xt, mask=m_d[:, None] & m_c[None, :], other=0.0)
        b_y = tl.load(p_y, mask=m_c[:, None] & m_v[None, :], other=0.0)
        b_ft = pick_transposed(b_xt, o_a, scale, BD, PRECISION) * pick_transposed(b_xt, o_b, scale, BD, PRECISION)
        b_ft *= b_weight[:, None]
        if REVERSE:
            b_z += tl.sum(b_ft * tl.load(dtotals + first + o_c * H, mask=m_c, other=0.0)[None, :], 1)
            b_ft *= load_inverse(totals + first, o_c, m_c, eps, H, NORMALIZE)[None, :]
        else:
            b_ft = tl.where(m_c[None, :], b_ft, 0.0)
            b_z += tl.sum(b_ft, 1)
        b_s += tl.dot(b_ft.to(DTYPE), b_y, input_precision=PRECISION)
    tl.store(end + i_nh.to(tl.int64) * F * V + o_state, b_s, mask=m_state)
    if i_v == 0:
        tl.store(end_sum + i_nh.to(tl.int64) * F + o_f, b_z, mask=m_f)


@triton.jit(do_not_specialize=["T"])
def second_order_output_fwd_kernel(
    x,  # [B, T, H, K]: q, or k in reverse
    x_other,  # [B, T, H, K]: k, or q in reverse
    y,  # [B, T, H, V]: v, or do in reverse
    totals,  # [B, T, H]: written forward, read in reverse
    states,  # [M, H, F, V]: S before each chunk, or its gradient after it in reverse
    sums,  # [M, H, F]: z, likewise
    o,  # [B, T, H, V]: o, or dv in reverse
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
    REVERSE: tl.constexpr,
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Outputs of one chunk, head and block of V, from the state before the chunk and its own values.

    Forward: x = q, x_other = k, y = v, o and the totals t. In reverse: x = k, x_other = q, y = do, and o is dv,
    ``dv_j = f(k_j) dS + sum_{i >= j} w_ij do_i / (t_i + eps)``.
    """
    i_cv, i_h = tl.program_id(0), tl.program_id(1)
    i_c, i_v = i_cv // tl.cdiv(V, BV), i_cv % tl.cdiv(V, BV)
    first, left = locate_chunk(i_c, cu_seqlens, sequence, first_chunk, T, C, PACKED)
    if left <= 0:
        return
    o_c, o_v, o_d = tl.arange(0, C), i_v * BV + tl.arange(0, BV), tl.arange(0, BD)
    o_i, o_j = o_c[:, None], o_c[None, :]
    m_c, m_v, m_d = o_c < left, o_v < V, o_d < K
    row = first * H + i_h
    states += (i_c.to(tl.int64) * H + i_h) * F * V
    sums += (i_c.to(tl.int64) * H + i_h) * F
    DTYPE: tl.constexpr = x.dtype.element_ty

    # Read S and z through the features, block by block
    b_x = tl.load(x + row * K + o_i * (H * K) + o_d[None, :], mask=m_c[:, None] & m_d[None, :], other=0.0)
    b_o = tl.zeros([C, BV], dtype=tl.float32)
    b_t = tl.zeros([C], dtype=tl.float32)
    feature_scale = 1.0 if REVERSE else scale
    for i_f in range(0, tl.cdiv(F, BF)):
        o_f = i_f * BF + tl.arange(0, BF)
        m_f = o_f < F
        o_a, o_b, b_weight = pairs(o_f, K, TAYLOR)
        b_f = pick(b_x, o_a, feature_scale, BD, PRECISION) * pick(b_x, o_b, feature_scale, BD, PRECISION)
        b_f *= b_weight[None, :]
        b_s = tl.load(states + o_f[:, None] * V + o_v[None, :], mask=m_f[:, None] & m_v[None, :], other=0.0)
        b_o += tl.dot(b_f.to(DTYPE), b_s, input_precision=PRECISION)
        if not REVERSE:
            b_t += tl.sum(b_f * tl.load(sums + o_f, mask=m_f, other=0.0)[None, :], 1)

    # Weights of the chunk's own steps, from scores as they are
    p_otherst = x_other + row * K + o_j * (H * K) + o_d[:, None]
    b_otherst = tl.load(p_otherst, mask=m_d[:, None] & m_c[None, :], other=0.0)
    b_w = weights_of(tl.dot(b_x, b_otherst, input_precision=PRECISION) * scale, TAYLOR)
    if REVERSE:
        b_w = tl.where(o_i <= o_j, b_w, 0.0) * load_inverse(totals + row, o_c, m_c, eps, H, NORMALIZE)[None, :]
    else:
        b_w = tl.where(o_i >= o_j, b_w, 0.0)
        b_t += tl.sum(b_w, 1)
    o_y, m_y = row * V + o_i * (H * V) + o_v[None, :], m_c[:, None] & m_v[None, :]
    b_o += tl.dot(b_w.to(DTYPE), tl.load(y + o_y, mask=m_y, other=0.0), input_precision=PRECISION)
    if not REVERSE:
        if i_v == 0:
            tl.store(totals + row + o_c * H, b_t, mask=m_c)
        if NORMALIZE:
            b_o /= (b_t + eps)[:, None]
    tl.store(o + o_y, b_o.to(DTYPE), mask=m_y)
