"""Triton kernel of the step-by-step generalized delta rule. Letters as in ``_shared/chunk_kernels.py``."""

import triton
import triton.language as tl

from fla.ops._shared.chunk_kernels import decay_of, split_program


@triton.jit(do_not_specialize=["T"])
def low_rank_steps_fwd_kernel(
    q,  # [B, T, H, K]
    k,  # [B, T, H, K]
    v,  # [B, T, H, V]
    a,  # [B, T, H, K]
    b,  # [B, T, H, K]
    gk,  # [B, T, H, K]: log decays, or None
    o,  # [B, T, H, V]
    start,  # [N, H, K, V], or None
    end,  # [N, H, K, V]
    cu_seqlens,  # [N + 1], or None
    scale,
    T,
    H: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    HAS_GK: tl.constexpr,
    HAS_START: tl.constexpr,
    PACKED: tl.constexpr,
):
    """``S = e^gk S + b (S^T a)^T + k v^T, o = scale S^T q`` for one sequence, head and block of V, S in registers."""
    i_v, i_nh = split_program(tl.cdiv(V, BV))
    i_n, i_h = i_nh // H, i_nh % H
    if PACKED:
        begin = tl.load(cu_seqlens + i_n).to(tl.int64)
        length = (tl.load(cu_seqlens + i_n + 1).to(tl.int64) - begin).to(tl.int32)
    else:
        begin = i_n.to(tl.int64) * T
        length = T
    o_k, o_v = tl.arange(0, BK), i_v * BV + tl.arange(0, BV)
    m_k, m_v = o_k < K, o_v < V
    m_s = m_k[:, None] & m_v[None, :]
    o_s = i_nh.to(tl.int64) * K * V + o_k[:, None] * V + o_v[None, :]

    b_s = tl.zeros([BK, BV], dtype=tl.float32)
    if HAS_START:
        b_s += tl.load(start + o_s, mask=m_s, other=0.0).to(tl.float32)
    for t in range(0, length):
        row = (begin + t) * H + i_h
        b_q = tl.load(q + row * K + o_k, mask=m_k, other=0.0).to(tl.float32) * scale
        b_k = tl.load(k + row * K + o_k, mask=m_k, other=0.0).to(tl.float32)
        b_a = tl.load(a + row * K + o_k, mask=m_k, other=0.0).to(tl.float32)
        b_b = tl.load(b + row * K + o_k, mask=m_k, other=0.0).to(tl.float32)
        b_v = tl.load(v + row * V + o_v, mask=m_v, other=0.0).to(tl.float32)
        b_w = tl.sum(b_s * b_a[:, None], 0)
        if HAS_GK:
            b_gk = tl.load(gk + row * K + o_k, mask=m_k, other=0.0).to(tl.float32)
            b_s *= decay_of(b_gk)[:, None]
        b_s += b_b[:, None] * b_w[None, :] + b_k[:, None] * b_v[None, :]
        tl.store(o + row * V + o_v, tl.sum(b_s * b_q[:, None], 0).to(o.dtype.element_ty), mask=m_v)
    tl.store(end + o_s, b_s, mask=m_s)
