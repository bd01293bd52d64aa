"""Triton kernels that carry the state of the gated delta rule over the chunks of a sequence: see ``kernels.py``.

In registers the state is transposed, ``[V, K]``, so that what a chunk computes is the left operand of what it computes
next. In memory it is ``[K, V]``.
"""

import triton
import triton.language as tl

from fla.ops._shared.chunk_kernels import (
    correct,
    decay_of_steps,
    decay_until,
    dot_halves,
    locate_sequence,
    split_program,
    step_decays,
    store_halves,
)

#: Precision of float32 products that the next chunk's state depends on: sums of TF32 products err to one side, and a
#: state that nothing decays adds up such errors.
STATE_PRECISION = tl.constexpr("ieee")


@triton.jit
def fetch_steps(
    y, beta, g, total, o_yt, o_c, o_k, m_v, m_k, left, HV: tl.constexpr, V: tl.constexpr, DECAY: tl.constexpr
):
    """Load from a chunk the transpose of y, the betas, and its steps' log decays or its channels' decays over it.

    The walks fetch them a chunk ahead: the compiler fetches early only what is an operand of a product.
    """
    m_c = o_c < left
    b_yt = tl.load(y + o_yt, mask=m_v[:, None] & m_c[None, :], other=0.0)
    b_beta = tl.load(beta + o_c * HV, mask=m_c, other=0.0)
    if DECAY == 3:
        b_decay = tl.load(total + o_k, mask=m_k & (left > 0), other=0.0)
    elif DECAY == 2:
        b_decay = decay_of_steps(g, o_c, m_c, HV, DECAY)
    else:
        b_decay = b_beta
    return b_yt, b_beta, b_decay


@triton.jit
def decays_of_chunk(
    g,
    b_g,
    o_i,
    o_j,
    o_c,
    left,
    C: tl.constexpr,
    HV: tl.constexpr,
    DECAY: tl.constexpr,
    BEFORE: tl.constexpr,
    DTYPE: tl.constexpr,
):
    """Decays of a chunk: for each step ``e^pre``, the same for the readers p, and ``e^suf``; and ``e^total``."""
    b_sum, b_pre, b_suf, b_total = step_decays(g, b_g, o_c, left, C, HV, DECAY, DTYPE)
    b_until = b_pre
    if BEFORE:
        b_until = decay_until(g, o_i, o_j, o_c, left, HV, DECAY, BEFORE)
    return b_pre[None, :], b_until[None, :], b_suf[None, :], b_total


@triton.jit(do_not_specialize=["T"])
def delta_walk_fwd_kernel(
    q,  # [B, T, H, K]: Q_read where DECAY is 3, with H = HV
    k,  # [B, T, H, K]: K_write where DECAY is 3
    p,  # [B, T, H, K]: P_read where DECAY is 3, else k itself unless BEFORE
    v,  # [B, T, HV, V]
    beta,  # [B, T, HV]
    g,  # [B, T, HV]: log decays; read only where DECAY is 2
    total,  # [M, HV, K]: decay over each chunk, or None unless DECAY is 3
    scores,  # [B, T, HV, C]
    corrections,  # [2, B, T, HV, C]: hi and lo; [1, ...] in float32
    o,  # [B, T, HV, V], or None where FOR_BACKWARD
    x,  # [2, B, T, HV, V]: hi and lo; [1, ...] in float32 or where DECAY is 3; None unless FOR_BACKWARD
    states,  # [M, HV, K, V]: before each chunk, or None unless FOR_BACKWARD
    start,  # [N, HV, K, V], or None
    end,  # [N, HV, K, V], or None where FOR_BACKWARD
    cu_seqlens,  # [N + 1], or None
    first_chunk,  # [N + 1], or None
    scale,
    T,
    stride,  # elements of scores: from hi to lo in corrections, and by C and V in x
    H: tl.constexpr,
    HV: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    C: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    DECAY: tl.constexpr,
    BEFORE: tl.constexpr,
    HAS_START: tl.constexpr,
    FOR_BACKWARD: tl.constexpr,
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Carry the state over the chunks of one sequence, head and block of V, and write o.

    ``FOR_BACKWARD``: write X and the state before each chunk instead.
    """
    i_v, i_nh = split_program(tl.cdiv(V, BV))
    i_n, i_h = i_nh // HV, i_nh % HV
    i_hq = i_h // (HV // H)
    begin, length, i_first = locate_sequence(i_n, cu_seqlens, first_chunk, T, C, PACKED)
    o_k, o_v, o_c = tl.arange(0, BK), i_v * BV + tl.arange(0, BV), tl.arange(0, C)
    o_i, o_j = o_c[:, None], o_c[None, :]
    m_k, m_v = o_k < K, o_v < V
    m_st = m_v[:, None] & m_k[None, :]
    o_st = o_v[:, None] + o_k[None, :] * V
    DTYPE: tl.constexpr = q.dtype.element_ty

    # State before the first chunk
    b_st = tl.zeros([BV, BK], dtype=tl.float32)
    if HAS_START:
        b_st += tl.load(start + i_nh.to(tl.int64) * K * V + o_st, mask=m_st, other=0.0).to(tl.float32)
    # Fetch what the first chunk needs
    o_x, o_xt = o_i * (H * K) + o_k[None, :], o_j * (H * K) + o_k[:, None]
    o_yt, o_at = o_j * (HV * V) + o_v[:, None], o_j * (HV * C) + o_i
    row_v, p_total = begin * HV + i_h, total
    if DECAY == 3:
        p_total += (i_first * HV + i_h) * K
    b_vt_ahead, b_beta_ahead, b_decay_ahead = fetch_steps(
        v + row_v * V, beta + row_v, g + row_v, p_total, o_yt, o_c, o_k, m_v, m_k, length, HV, V, DECAY
    )
    for i_c in range(0, tl.cdiv(length, C)):
        left = length - i_c * C
        m_c = o_c < left
        m_x, m_xt, m_yt = m_c[:, None] & m_k[None, :], m_k[:, None] & m_c[None, :], m_v[:, None] & m_c[None, :]
        row_q, row_v = (begin + i_c * C) * H + i_hq, (begin + i_c * C) * HV + i_h
        # Take what was fetched, and fetch what the next chunk needs
        b_vt, b_beta, b_decay = b_vt_ahead, b_beta_ahead.to(tl.float32)[None, :], b_decay_ahead
        row_next = row_v + C * HV
        if DECAY == 3:
            p_total += HV * K
        b_vt_ahead, b_beta_ahead, b_decay_ahead = fetch_steps(
            v + row_next * V, beta + row_next, g + row_next, p_total, o_yt, o_c, o_k, m_v, m_k, left - C, HV, V, DECAY
        )
        # Load the erase and write keys
        b_pt = tl.load(p + row_q * K + o_xt, mask=m_xt, other=0.0)
        if BEFORE or DECAY == 3:
            b_k = tl.load(k + row_q * K + o_x, mask=m_x, other=0.0)
        else:
            b_k = tl.trans(b_pt)

        # Read the state with p: Y, and X by the corrections
        b_sd = b_st.to(DTYPE)
        b_read = dot_halves(b_st, b_pt, tl.zeros([BV, C], dtype=tl.float32), DTYPE, STATE_PRECISION)
        if DECAY == 3:
            b_st *= b_decay[None, :]
        if DECAY == 2:
            b_pre, b_until, b_suf, b_total = decays_of_chunk(
                g + row_v, b_decay, o_i, o_j, o_c, left, C, HV, DECAY, BEFORE, DTYPE
            )
            b_read *= b_until
            b_st *= b_total
        b_y = b_vt - b_read
        b_x = b_y + correct(b_y * b_beta, corrections + row_v * C + o_at, stride, m_c[None, :], DTYPE, STATE_PRECISION)
        b_u = b_x * b_beta
        # Store X and the state, or read the outputs
        if FOR_BACKWARD:
            tl.store(states + ((i_first + i_c) * HV + i_h) * K * V + o_st, b_sd, mask=m_st)
            store_halves(x + row_v * V + o_yt, (stride // C).to(tl.int64) * V, b_x, m_yt, DECAY != 3)
        else:
            b_qt = tl.load(q + row_q * K + o_xt, mask=m_xt, other=0.0)
            b_at = tl.load(scores + row_v * C + o_at, mask=m_c[None, :], other=0.0)
            b_o = tl.dot(b_sd, b_qt, input_precision=PRECISION) * scale
            if DECAY == 2:
                b_o *= b_pre
            b_o = dot_halves(b_u, b_at, b_o, DTYPE, PRECISION)
            tl.store(o + row_v * V + o_yt, b_o.to(DTYPE), mask=m_yt)
        # Write to the state
        if DECAY == 2:
            b_u *= b_suf
        b_st = dot_halves(b_u, b_k, b_st, DTYPE, STATE_PRECISION)
    if not FOR_BACKWARD:
        tl.store(end + i_nh.to(tl.int64) * K * V + o_st, b_st, mask=m_st)


@triton.jit(do_not_specialize=["T"])
def delta_walk_bwd_kernel(
    q,  # [B, T, H, K]: Q_read where DECAY is 3, with H = HV
    k,  # [B, T, H, K]: K_write where DECAY is 3
    p,  # [B, T, H, K]: P_read where DECAY is 3, else k itself unless BEFORE
    beta,  # [B, T, HV]
    g,  # [B, T, HV]: log decays; read only where DECAY is 2
    total,  # [M, HV, K]: decay over each chunk, or None unless DECAY is 3
    scores,  # [B, T, HV, C]
    corrections,  # [2, B, T, HV, C]: hi and lo; [1, ...] in float32
    x,  # [2, B, T, HV, V]: hi, which is read, and lo; [1, ...] in float32 or where DECAY is 3
    do,  # [B, T, HV, V]
    dv,  # [B, T, HV, V]
    dbeta,  # [blocks of V, B, T, HV]
    dstates,  # [M, HV, K, V]: after each chunk
    dend,  # [N, HV, K, V], or None
    dstart,  # [N, HV, K, V]
    cu_seqlens,  # [N + 1], or None
    first_chunk,  # [N + 1], or None
    scale,
    T,
    stride,  # elements of scores: from hi to lo in corrections, and by C from block to block in dbeta
    H: tl.constexpr,
    HV: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    C: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    DECAY: tl.constexpr,
    BEFORE: tl.constexpr,
    HAS_DEND: tl.constexpr,
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Carry the gradient of the state back over the chunks of one sequence, head and block of V.

    ``dU = D + R^T (beta D)`` with ``D = A^T dO + K_write dS'``, ``dV = beta dU`` and
    ``dS = e^total dS' + scale Q_read^T dO - P_read^T dV``. Writes dV, dS' of every chunk, which is the gradient of
    the state after it, and ``dbeta[block, B, T, HV]``, to be summed over the blocks of V.
    """
    i_v, i_nh = split_program(tl.cdiv(V, BV))
    i_n, i_h = i_nh // HV, i_nh % HV
    i_hq = i_h // (HV // H)
    begin, length, i_first = locate_sequence(i_n, cu_seqlens, first_chunk, T, C, PACKED)
    chunks = tl.cdiv(length, C)
    o_k, o_v, o_c = tl.arange(0, BK), i_v * BV + tl.arange(0, BV), tl.arange(0, C)
    o_i, o_j = o_c[:, None], o_c[None, :]
    m_k, m_v = o_k < K, o_v < V
    m_st = m_v[:, None] & m_k[None, :]
    o_st = o_v[:, None] + o_k[None, :] * V
    DTYPE: tl.constexpr = q.dtype.element_ty

    # Gradient of the state after the last chunk
    b_dst = tl.zeros([BV, BK], dtype=tl.float32)
    if HAS_DEND:
        b_dst += tl.load(dend + i_nh.to(tl.int64) * K * V + o_st, mask=m_st, other=0.0).to(tl.float32)
    # Fetch what the last chunk needs
    o_x, o_xt = o_i * (H * K) + o_k[None, :], o_j * (H * K) + o_k[:, None]
    o_yt, o_a = o_j * (HV * V) + o_v[:, None], o_i * (HV * C) + o_j
    left = tl.minimum(length, length - (chunks - 1) * C)
    row_v, p_total = (begin + length - left) * HV + i_h, total
    if DECAY == 3:
        p_total += ((i_first + chunks - 1) * HV + i_h) * K
    b_xt_ahead, b_beta_ahead, b_decay_ahead = fetch_steps(
        x + row_v * V, beta + row_v, g + row_v, p_total, o_yt, o_c, o_k, m_v, m_k, left, HV, V, DECAY
    )
    for i in range(0, chunks):
        i_c = chunks - 1 - i
        left = length - i_c * C
        m_c = o_c < left
        m_x, m_xt, m_yt = m_c[:, None] & m_k[None, :], m_k[:, None] & m_c[None, :], m_v[:, None] & m_c[None, :]
        row_q, row_v = (begin + i_c * C) * H + i_hq, (begin + i_c * C) * HV + i_h
        # Take what was fetched, and fetch what the chunk before needs
        b_xt, b_beta, b_decay = b_xt_ahead, b_beta_ahead.to(tl.float32)[None, :], b_decay_ahead
        row_next = row_v - C * HV
        if DECAY == 3:
            p_total -= HV * K
        b_xt_ahead, b_beta_ahead, b_decay_ahead = fetch_steps(
            x + row_next * V, beta + row_next, g + row_next, p_total, o_yt, o_c, o_k, m_v, m_k, i_c * C, HV, V, DECAY
        )
        # Load keys, queries and scores
        b_kt = tl.load(k + row_q * K + o_xt, mask=m_xt, other=0.0)
        b_q = tl.load(q + row_q * K + o_x, mask=m_x, other=0.0)
        if BEFORE or DECAY == 3:
            b_p = tl.load(p + row_q * K + o_x, mask=m_x, other=0.0)
        else:
            b_p = tl.trans(b_kt)
        b_dot = tl.load(do + row_v * V + o_yt, mask=m_yt, other=0.0)
        b_a = tl.load(scores + row_v * C + o_a, mask=m_c[:, None], other=0.0)

        # Gather D: through the state after the chunk, then through the outputs
        tl.store(dstates + ((i_first + i_c) * HV + i_h) * K * V + o_st, b_dst.to(DTYPE), mask=m_st)
        b_du = dot_halves(b_dst, b_kt, tl.zeros([BV, C], dtype=tl.float32), DTYPE, STATE_PRECISION)
        if DECAY == 3:
            b_dst *= b_decay[None, :]
        if DECAY == 2:
            b_pre, b_until, b_suf, b_total = decays_of_chunk(
                g + row_v, b_decay, o_i, o_j, o_c, left, C, HV, DECAY, BEFORE, DTYPE
            )
            b_du *= b_suf
            b_dst *= b_total
        b_du = tl.dot(b_dot, b_a, b_du, input_precision=PRECISION)
        # Gradient of beta X, by the corrections; those of beta and V follow
        b_du += correct(b_du * b_beta, corrections + row_v * C + o_a, stride, m_c[:, None], DTYPE, STATE_PRECISION)
        tl.store(dbeta + i_v.to(tl.int64) * (stride // C) + row_v + o_c * HV, tl.sum(b_xt * b_du, 0), mask=m_c)
        b_dv = b_du * b_beta
        tl.store(dv + row_v * V + o_yt, b_dv.to(DTYPE), mask=m_yt)
        # Carry the gradient to the state before the chunk: through q, then through p
        b_dot = b_dot.to(tl.float32) * scale
        if DECAY == 2:
            b_dot *= b_pre
            b_dv *= b_until
        b_dst = tl.dot(b_dot.to(DTYPE), b_q, b_dst, input_precision=STATE_PRECISION)
        b_dst = dot_halves(-b_dv, b_p, b_dst, DTYPE, STATE_PRECISION)
    tl.store(dstart + i_nh.to(tl.int64) * K * V + o_st, b_dst, mask=m_st)
