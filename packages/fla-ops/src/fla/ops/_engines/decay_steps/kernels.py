"""Triton kernel of step-by-step gated linear attention. Letters as in ``_shared/chunk_kernels.py``."""

import triton
import triton.language as tl

from fla.ops._shared.chunk_kernels import decay_of, split_program


@triton.jit(do_not_specialize=["T"])
def decay_steps_fwd_kernel(
    q,  # [B, T, H, K]
    k,  # [B, T, H, K]
    v,  # [B, T, HV, V]
    g,  # [B, T, HV]: log decays, or None
    gk,  # [B, T, H, K]: log decays, or None
    gv,  # [B, T, HV, V]: log decays, or None
    u,  # [HV, K]: the bonus, or None
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
    HAS_G: tl.constexpr,
    HAS_GK: tl.constexpr,
    HAS_GV: tl.constexpr,
    HAS_U: tl.constexpr,
    HAS_START: tl.constexpr,
    STATE_V_FIRST: tl.constexpr,
    PACKED: tl.constexpr,
):
    """``S = e^g e^gk (e^gv)^T * S + k v^T, o = scale S^T q`` for one sequence, head and block of V, S in registers.

    With u, o is read before that: ``o = scale (S + diag(u) k v^T)^T q``.
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
    if HAS_U:
        b_u = tl.load(u + i_h * K + o_k, mask=m_k, other=0.0).to(tl.float32)
    for t in range(0, length):
        row = (begin + t) * HV + i_h
        row_q = (begin + t) * H + i_hq
        b_q = tl.load(q + row_q * K + o_k, mask=m_k, other=0.0).to(tl.float32) * scale
        b_k = tl.load(k + row_q * K + o_k, mask=m_k, other=0.0).to(tl.float32)
        b_v = tl.load(v + row * V + o_v, mask=m_v, other=0.0).to(tl.float32)
        b_kv = b_k[:, None] * b_v[None, :]
        if HAS_U:
            b_o = tl.sum((b_s + b_u[:, None] * b_kv) * b_q[:, None], 0)
        if HAS_G:
            b_s *= decay_of(tl.load(g + row).to(tl.float32))
        if HAS_GK:
            b_gk = tl.load(gk + row_q * K + o_k, mask=m_k, other=0.0).to(tl.float32)
            b_s *= decay_of(b_gk)[:, None]
        if HAS_GV:
            b_gv = tl.load(gv + row * V + o_v, mask=m_v, other=0.0).to(tl.float32)
            b_s *= decay_of(b_gv)[None, :]
        b_s += b_kv
        if not HAS_U:
            b_o = tl.sum(b_s * b_q[:, None], 0)
        tl.store(o + row * V + o_v, b_o.to(o.dtype.element_ty), mask=m_v)
    tl.store(end + o_s, b_s, mask=m_s)
