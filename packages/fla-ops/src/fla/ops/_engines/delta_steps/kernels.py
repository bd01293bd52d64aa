"""Triton kernel of the step-by-step gated delta rule. Letters as in ``_shared/chunk_kernels.py``."""

import triton
import triton.language as tl

from fla.ops._shared.chunk_kernels import decay_of, split_program


@triton.jit(do_not_specialize=["T"])
def delta_steps_fwd_kernel(
    q,  # [B, T, H, K]
    k,  # [B, T, H, K]
    p,  # [B, T, H, K]: k itself unless BEFORE
    v,  # [B, T, HV, V]
    beta,  # [B, T, HV], or [B, T, HV, V] where BETA_PER_CHANNEL
    g,  # [B, T, HV]: log decays, or None
    gk,  # [B, T, HV, K]: log decays, or None
    gv,  # [B, T, HV, V]: log decays, or None
    o,  # [B, T, HV, V]
    start,  # [N, HV, K, V], or [N, HV, V, K] where STATE_V_FIRST; or None
    end,  # as start, never None
    cu_seqlens,  # [N + 1], or None
    scale,
    T,
    H: tl.constexpr,
    HV: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    BEFORE: tl.constexpr,
    HAS_G: tl.constexpr,
    HAS_GK: tl.constexpr,
    HAS_GV: tl.constexpr,
    HAS_START: tl.constexpr,
    BETA_PER_CHANNEL: tl.constexpr,
    STATE_V_FIRST: tl.constexpr,
    PACKED: tl.constexpr,
):
    """``S = decay * S, S += k (beta (v - S^T p))^T, o = scale S^T q`` for one sequence, head and block of V.

    ``BEFORE``: p reads S before it decays.
    """
    i_v, i_nh = split_program(tl.cdiv(V, BV))
    i_n, i_h = i_nh // HV, i_nh % HV
    i_hq = i_h // (HV // H)
    if PACKED:
        begin = tl.load(cu_seqlens + i_n).to(tl.int64)
        length = (tl.load(cu_seqlens + i_n + 1).to(tl.int64) - begin).to(tl.int32)
    else:
        begin = i_n.to(tl.int64) * T
        length = T
    o_k, o_v = tl.arange(0, BK), i_v * BV + tl.arange(0, BV)
    m_k, m_v = o_k < K, o_v < V
    m_s = m_k[:, None] & m_v[None, :]
    if STATE_V_FIRST:
        o_s = i_nh.to(tl.int64) * K * V + o_v[None, :] * K + o_k[:, None]
    else:
        o_s = i_nh.to(tl.int64) * K * V + o_k[:, None] * V + o_v[None, :]

    b_s = tl.zeros([BK, BV], dtype=tl.float32)
    if HAS_START:
        b_s += tl.load(start + o_s, mask=m_s, other=0.0).to(tl.float32)
    for t in range(0, length):
        row = (begin + t) * HV + i_h
        row_q = (begin + t) * H + i_hq
        b_q = tl.load(q + row_q * K + o_k, mask=m_k, other=0.0).to(tl.float32) * scale
        b_k = tl.load(k + row_q * K + o_k, mask=m_k, other=0.0).to(tl.float32)
        b_p = tl.load(p + row_q * K + o_k, mask=m_k, other=0.0).to(tl.float32)
        b_v = tl.load(v + row * V + o_v, mask=m_v, other=0.0).to(tl.float32)
        if BETA_PER_CHANNEL:
            b_beta = tl.load(beta + row * V + o_v, mask=m_v, other=0.0).to(tl.float32)
        else:
            b_beta = tl.load(beta + row).to(tl.float32)
        if BEFORE:
            b_read = tl.sum(b_s * b_p[:, None], 0)
        if HAS_G:
            b_s *= decay_of(tl.load(g + row).to(tl.float32))
        if HAS_GK:
            b_gk = tl.load(gk + row * K + o_k, mask=m_k, other=0.0).to(tl.float32)
            b_s *= decay_of(b_gk)[:, None]
        if HAS_GV:
            b_gv = tl.load(gv + row * V + o_v, mask=m_v, other=0.0).to(tl.float32)
            b_s *= decay_of(b_gv)[None, :]
        if not BEFORE:
            b_read = tl.sum(b_s * b_p[:, None], 0)
        b_x = b_beta * (b_v - b_read)
        b_s += b_k[:, None] * b_x[None, :]
        tl.store(o + row * V + o_v, tl.sum(b_s * b_q[:, None], 0).to(o.dtype.element_ty), mask=m_v)
    tl.store(end + o_s, b_s, mask=m_s)
