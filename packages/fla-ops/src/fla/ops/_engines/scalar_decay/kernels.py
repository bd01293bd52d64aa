"""Triton kernels of chunked linear attention with scalar decay; algorithm.py is the same algorithm in PyTorch.

A chunk of C steps reads the state S at its start, adds to it, and hands it on. Every exponent is that of a decay over
some span of steps, so none is positive. HV value heads share H query and key heads. Letters as in
``_shared/chunk_kernels.py``.

Outputs and the gradients of values are the same computation in opposite directions of time:

    o_i = scale e^pre_i q_i S + sum_{j <= i} A_ij w_j v_j        S'  = e^total S  + sum_j e^suf_j w_j k_j v_j^T
    dv_j = w_j (e^suf_j k_j dS + sum_{i >= j} A_ij do_i)         dS' = e^total dS + scale sum_i e^pre_i q_i do_i^T

So the kernels take readers x, writers y and values v: q, k, v forward, and k, q, do where ``REVERSE``. ``WEIGHTED``:
each write has a factor, ``w[B, T, HV]``. ``SKIP``: o gets ``skip[HV, V]`` times v in addition.

``DECAY`` says where the log decays come from: 0, there are none; 1, one for each head, ``g[HV]``; 2, one for each step
and head, ``g[B, T, HV]``.
"""

import triton
import triton.language as tl

from fla.ops._shared.chunk_kernels import (
    LOG2E,
    decay_between,
    decay_between_transposed,
    decay_of_steps,
    locate_chunk,
    locate_sequence,
    split_program,
    step_decays,
)


@triton.jit
def pair_decays(
    g,
    b_sum,
    o_i,
    o_j,
    o_c,
    left,
    HV: tl.constexpr,
    DECAY: tl.constexpr,
    REVERSE: tl.constexpr,
    DTYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """[i, j]: the decay after step j, up to and with step i, and 0 where j > i; i and j exchanged where ``REVERSE``."""
    m_a = (o_i <= o_j) if REVERSE else (o_i >= o_j)
    if DECAY == 0:
        b_e = tl.where(m_a, 1.0, 0.0)
    elif DECAY == 1:
        b_e = tl.exp2(tl.load(g).to(tl.float32) * LOG2E * tl.abs(o_i - o_j).to(tl.float32))
        b_e = tl.where(m_a, b_e, 0.0)
    elif DTYPE != tl.float32:
        b_span = b_sum[None, :] - b_sum[:, None] if REVERSE else b_sum[:, None] - b_sum[None, :]
        b_e = tl.exp2(tl.where(m_a, b_span, float("-inf")))
    elif REVERSE:
        b_e = tl.where(m_a, decay_between_transposed(g, o_i, o_j, o_c, left, HV, DECAY, DTYPE, PRECISION), 0.0)
    else:
        b_e = tl.where(m_a, decay_between(g, o_i, o_j, o_c, left, HV, DECAY, DTYPE, PRECISION), 0.0)
    return b_e


@triton.jit
def store_outputs(
    b_o,
    b_v,
    b_w,
    other,
    skip,
    out,
    dw,
    dskip,
    o_c,
    o_y,
    o_v,
    m_c,
    m_y,
    m_v,
    HV: tl.constexpr,
    WEIGHTED: tl.constexpr,
    SKIP: tl.constexpr,
    REVERSE: tl.constexpr,
):
    """Store what a chunk reads, skip included; in reverse also the gradients of w and skip, with v in ``other``."""
    if REVERSE and (WEIGHTED or SKIP):
        b_y = tl.load(other + o_y, mask=m_y, other=0.0).to(tl.float32)
        if WEIGHTED:
            tl.store(dw + o_c * HV, tl.sum(b_y * b_o, 1), mask=m_c)
            b_o *= b_w[:, None]
        if SKIP:
            tl.store(dskip + o_v, tl.sum(b_y * b_v.to(tl.float32), 0), mask=m_v)
    if SKIP:
        b_o += b_v.to(tl.float32) * tl.load(skip + o_v, mask=m_v, other=0.0).to(tl.float32)[None, :]
    tl.store(out + o_y, b_o.to(out.dtype.element_ty), mask=m_y)


@triton.jit(do_not_specialize=["T"])
def scalar_decay_state_kernel(
    y,  # [B, T, H, K]: k, or q in reverse
    v,  # [B, T, HV, V]: v, or do in reverse
    g,  # [B, T, HV] or [HV], as DECAY says: log decays; never read where it is 0
    w,  # [B, T, HV], or None
    states,  # [M, HV, K, V]: before each chunk, or the gradient after it in reverse
    start,  # [N, HV, K, V], or None
    end,  # [N, HV, K, V]
    cu_seqlens,  # [N + 1], or None
    first_chunk,  # [N + 1], or None
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
    HAS_START: tl.constexpr,
    REVERSE: tl.constexpr,
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Carry the state over the chunks of one sequence and head, and store it before each chunk."""
    i_kv, i_nh = split_program(tl.cdiv(K, BK) * tl.cdiv(V, BV))
    i_k, i_v = i_kv // tl.cdiv(V, BV), i_kv % tl.cdiv(V, BV)
    i_n, i_h = i_nh // HV, i_nh % HV
    i_hx = i_h // (HV // H)
    begin, length, i_first = locate_sequence(i_n, cu_seqlens, first_chunk, T, C, PACKED)
    chunks = tl.cdiv(length, C)

    o_k, o_v, o_c = i_k * BK + tl.arange(0, BK), i_v * BV + tl.arange(0, BV), tl.arange(0, C)
    m_k, m_v = o_k < K, o_v < V
    m_state = m_k[:, None] & m_v[None, :]
    o_state = o_k[:, None] * V + o_v[None, :]
    DTYPE: tl.constexpr = y.dtype.element_ty

    b_s = tl.zeros([BK, BV], dtype=tl.float32)
    if HAS_START:
        b_s += tl.load(start + i_nh.to(tl.int64) * K * V + o_state, mask=m_state, other=0.0).to(tl.float32)
    for i in range(0, chunks):
        i_c = chunks - 1 - i if REVERSE else i
        tl.store(states + ((i_first + i_c) * HV + i_h) * K * V + o_state, b_s.to(DTYPE), mask=m_state)
        first = begin + i_c * C
        left = length - i_c * C
        m_c = o_c < left
        row_v = first * HV + i_h
        p_y = y + (first * H + i_hx) * K + o_c[None, :] * (H * K) + o_k[:, None]
        b_y = tl.load(p_y, mask=m_k[:, None] & m_c[None, :], other=0.0)
        p_v = v + row_v * V + o_c[:, None] * (HV * V) + o_v[None, :]
        b_v = tl.load(p_v, mask=m_c[:, None] & m_v[None, :], other=0.0)
        b_e = tl.full([C], 1.0, dtype=tl.float32)
        if DECAY != 0:
            p_g = g + row_v if DECAY == 2 else g + i_h
            b_g = decay_of_steps(p_g, o_c, m_c, HV, DECAY)
            _, b_pre, b_suf, b_total = step_decays(p_g, b_g, o_c, left, C, HV, DECAY, DTYPE)
            b_s *= b_total
            b_e = b_pre if REVERSE else b_suf
        if WEIGHTED and not REVERSE:
            b_e *= tl.load(w + row_v + o_c * HV, mask=m_c, other=0.0).to(tl.float32)
        b_y = (b_y * (b_e * scale)[None, :]).to(DTYPE)
        b_s += tl.dot(b_y, b_v, input_precision=PRECISION)
    tl.store(end + i_nh.to(tl.int64) * K * V + o_state, b_s, mask=m_state)


@triton.jit(do_not_specialize=["T"])
def scalar_decay_output_fwd_kernel(
    x,  # [B, T, H, K]: q, or k in reverse
    y,  # [B, T, H, K]: k, or q in reverse
    v,  # [B, T, HV, V]: v, or do in reverse
    g,  # [B, T, HV] or [HV], as DECAY says: log decays; never read where it is 0
    w,  # [B, T, HV], or None
    skip,  # [HV, V]; x, and never read, without SKIP
    other,  # [B, T, HV, V]: v in reverse, else None
    states,  # [M, HV, K, V]: before each chunk, or the gradient after it in reverse
    out,  # [B, T, HV, V]: o, or dv in reverse
    dw,  # [blocks of V, B, T, HV], empty unless REVERSE and WEIGHTED
    dskip,  # [M, HV, V], empty unless REVERSE and SKIP
    cu_seqlens,  # [N + 1], or None
    sequence,  # [M], or None
    first_chunk,  # [N + 1], or None
    scale,
    T,
    dw_stride,  # elements from block to block in dw
    H: tl.constexpr,
    HV: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    C: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    DECAY: tl.constexpr,
    WEIGHTED: tl.constexpr,
    SKIP: tl.constexpr,
    REVERSE: tl.constexpr,
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Outputs of one chunk and head in a block of V, from the state before the chunk and its own values."""
    i_cv, i_h = tl.program_id(0), tl.program_id(1)
    i_c, i_v = i_cv // tl.cdiv(V, BV), i_cv % tl.cdiv(V, BV)
    first, left = locate_chunk(i_c, cu_seqlens, sequence, first_chunk, T, C, PACKED)
    if left <= 0:
        return
    o_c, o_v = tl.arange(0, C), i_v * BV + tl.arange(0, BV)
    o_i, o_j = o_c[:, None], o_c[None, :]
    m_c, m_v = o_c < left, o_v < V
    row_x, row_v = first * H + i_h // (HV // H), first * HV + i_h
    x += row_x * K
    y += row_x * K
    i_state = i_c.to(tl.int64) * HV + i_h
    states += i_state * K * V
    p_g = g + row_v if DECAY == 2 else g + i_h
    DTYPE: tl.constexpr = x.dtype.element_ty

    b_o = tl.zeros([C, BV], dtype=tl.float32)
    b_a = tl.zeros([C, C], dtype=tl.float32)
    for i_k in range(0, tl.cdiv(K, BK)):
        o_k = i_k * BK + tl.arange(0, BK)
        m_k = o_k < K
        b_x = tl.load(x + o_i * (H * K) + o_k[None, :], mask=m_c[:, None] & m_k[None, :], other=0.0)
        b_yt = tl.load(y + o_j * (H * K) + o_k[:, None], mask=m_k[:, None] & m_c[None, :], other=0.0)
        b_s = tl.load(states + o_k[:, None] * V + o_v[None, :], mask=m_k[:, None] & m_v[None, :], other=0.0)
        b_o += tl.dot(b_x, b_s, input_precision=PRECISION)
        b_a += tl.dot(b_x, b_yt, input_precision=PRECISION)
    b_w = tl.full([C], 1.0, dtype=tl.float32)
    if WEIGHTED:
        b_w = tl.load(w + row_v + o_c * HV, mask=m_c, other=0.0).to(tl.float32)
    b_sum = b_w
    if DECAY != 0:
        b_g = decay_of_steps(p_g, o_c, m_c, HV, DECAY)
        b_sum, b_pre, b_suf, _ = step_decays(p_g, b_g, o_c, left, C, HV, DECAY, DTYPE)
        b_o *= (b_suf if REVERSE else b_pre)[:, None]
    b_a *= pair_decays(p_g, b_sum, o_i, o_j, o_c, left, HV, DECAY, REVERSE, DTYPE, PRECISION) * scale
    if not REVERSE:
        b_o *= scale
        if WEIGHTED:
            b_a *= b_w[None, :]
    o_y, m_y = row_v * V + o_i * (HV * V) + o_v[None, :], m_c[:, None] & m_v[None, :]
    b_v = tl.load(v + o_y, mask=m_y, other=0.0)
    b_o += tl.dot(b_a.to(DTYPE), b_v, input_precision=PRECISION)
    dw += i_v.to(tl.int64) * dw_stride + row_v
    dskip += i_state * V
    skip += i_h * V
    store_outputs(b_o, b_v, b_w, other, skip, out, dw, dskip, o_c, o_y, o_v, m_c, m_y, m_v, HV, WEIGHTED, SKIP, REVERSE)


@triton.jit(do_not_specialize=["T"])
def scalar_decay_walk_kernel(
    x,  # [B, T, H, K]: q, or k in reverse
    y,  # [B, T, H, K]: k, or q in reverse
    v,  # [B, T, HV, V]: v, or do in reverse
    g,  # [B, T, HV] or [HV], as DECAY says: log decays; never read where it is 0
    w,  # [B, T, HV], or None
    skip,  # [HV, V]; x, and never read, without SKIP
    other,  # [B, T, HV, V]: v in reverse, else None
    states,  # [M, HV, K, V]: as above, empty unless STORE_STATES
    start,  # [N, HV, K, V], or None
    end,  # [N, HV, K, V]
    out,  # [B, T, HV, V]: o, or dv in reverse
    dw,  # [blocks of V, B, T, HV], empty unless REVERSE and WEIGHTED
    dskip,  # [M, HV, V], empty unless REVERSE and SKIP
    cu_seqlens,  # [N + 1], or None
    first_chunk,  # [N + 1], or None
    scale,
    T,
    dw_stride,  # elements from block to block in dw
    H: tl.constexpr,
    HV: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    C: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    DECAY: tl.constexpr,
    WEIGHTED: tl.constexpr,
    SKIP: tl.constexpr,
    HAS_START: tl.constexpr,
    STORE_STATES: tl.constexpr,
    REVERSE: tl.constexpr,
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Do the work of both kernels above for one sequence, head and block of V: states need not go to memory.

    The whole of K is one block.
    """
    i_v, i_nh = split_program(tl.cdiv(V, BV))
    i_n, i_h = i_nh // HV, i_nh % HV
    begin, length, i_first = locate_sequence(i_n, cu_seqlens, first_chunk, T, C, PACKED)
    chunks = tl.cdiv(length, C)

    o_k, o_v, o_c = tl.arange(0, BK), i_v * BV + tl.arange(0, BV), tl.arange(0, C)
    o_i, o_j = o_c[:, None], o_c[None, :]
    m_k, m_v = o_k < K, o_v < V
    m_state = m_k[:, None] & m_v[None, :]
    o_state = o_k[:, None] * V + o_v[None, :]
    DTYPE: tl.constexpr = x.dtype.element_ty
    x += i_h // (HV // H) * K
    y += i_h // (HV // H) * K
    skip += i_h * V
    dw += i_v.to(tl.int64) * dw_stride

    # State before the first chunk
    b_s = tl.zeros([BK, BV], dtype=tl.float32)
    if HAS_START:
        b_s += tl.load(start + i_nh.to(tl.int64) * K * V + o_state, mask=m_state, other=0.0).to(tl.float32)
    for i in range(0, chunks):
        # Locate the chunk, and store the state if asked
        i_c = chunks - 1 - i if REVERSE else i
        first = begin + i_c * C
        left = length - i_c * C
        m_c = o_c < left
        row_v = first * HV + i_h
        i_state = (i_first + i_c) * HV + i_h
        if STORE_STATES:
            tl.store(states + i_state * K * V + o_state, b_s.to(DTYPE), mask=m_state)
        # Load the chunk's readers, writers, values and weights
        row_x = first * (H * K)
        b_x = tl.load(x + row_x + o_i * (H * K) + o_k[None, :], mask=m_c[:, None] & m_k[None, :], other=0.0)
        b_yt = tl.load(y + row_x + o_j * (H * K) + o_k[:, None], mask=m_k[:, None] & m_c[None, :], other=0.0)
        o_y, m_y = row_v * V + o_i * (HV * V) + o_v[None, :], m_c[:, None] & m_v[None, :]
        b_v = tl.load(v + o_y, mask=m_y, other=0.0)
        b_w = tl.full([C], 1.0, dtype=tl.float32)
        if WEIGHTED:
            b_w = tl.load(w + row_v + o_c * HV, mask=m_c, other=0.0).to(tl.float32)

        # Read the state, and take the scores of the chunk
        b_o = tl.dot(b_x, b_s.to(DTYPE), input_precision=PRECISION)
        b_a = tl.dot(b_x, b_yt, input_precision=PRECISION)
        b_write = tl.full([C], 1.0, dtype=tl.float32)
        b_sum = b_w
        # Decay both, and the state over the chunk
        p_g = g + row_v if DECAY == 2 else g + i_h
        if DECAY != 0:
            b_g = decay_of_steps(p_g, o_c, m_c, HV, DECAY)
            b_sum, b_pre, b_suf, b_total = step_decays(p_g, b_g, o_c, left, C, HV, DECAY, DTYPE)
            b_s *= b_total
            b_o *= (b_suf if REVERSE else b_pre)[:, None]
            b_write = b_pre if REVERSE else b_suf
        b_a *= pair_decays(p_g, b_sum, o_i, o_j, o_c, left, HV, DECAY, REVERSE, DTYPE, PRECISION) * scale
        if REVERSE:
            b_write *= scale
        else:
            b_o *= scale
            if WEIGHTED:
                b_a *= b_w[None, :]
                b_write *= b_w
        # Read the chunk's own values, then write to the state
        b_o += tl.dot(b_a.to(DTYPE), b_v, input_precision=PRECISION)
        store_outputs(
            b_o,
            b_v,
            b_w,
            other,
            skip,
            out,
            dw + row_v,
            dskip + i_state * V,
            o_c,
            o_y,
            o_v,
            m_c,
            m_y,
            m_v,
            HV,
            WEIGHTED,
            SKIP,
            REVERSE,
        )
        b_s += tl.dot(b_yt, (b_v * b_write[:, None]).to(DTYPE), input_precision=PRECISION)
    tl.store(end + i_nh.to(tl.int64) * K * V + o_state, b_s, mask=m_state)
