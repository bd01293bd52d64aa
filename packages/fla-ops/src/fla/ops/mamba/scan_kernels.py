"""Triton kernels of the selective scan; scan_torch.py is the same algorithm in PyTorch.

A program walks over the steps of one sequence for a block of channels. The states of a channel lie in one thread, so
that sums over states, which every step has, need no other. S steps are loaded at a time, and then taken one by one.

Letters as in ``_chunks_kernels.py``; and D channels, G groups of P of them, N states of a channel, BN of them with
padding, S steps loaded at a time.
"""

import triton
import triton.language as tl

from fla.ops._chunks_kernels import LOG2E


@triton.jit
def softplus(x):
    """``log(1 + e^x)``, to full relative precision: what rounding took from ``1 + e`` is divided out."""
    e = tl.exp2(-tl.abs(x) * LOG2E)
    one_and_e = 1.0 + e
    rest = one_and_e - 1.0
    small = tl.where(rest == 0.0, e, tl.log(one_and_e) * (e / tl.where(rest == 0.0, 1.0, rest)))
    return tl.maximum(x, 0.0) + small


@triton.jit
def load_rows(p, stride, left, o, m, S: tl.constexpr):
    """The S rows from p on, in float32; zero from ``left`` on."""
    rows = ()
    for s in tl.static_range(S):
        rows = rows + (tl.load(p + s * stride + o, mask=m & (s < left), other=0.0).to(tl.float32),)
    return rows


@triton.jit
def step_sizes(raw, b_bias, left, SOFTPLUS: tl.constexpr, S: tl.constexpr):
    """The steps that rows of delta stand for; zero from ``left`` on, where a state stays as it is."""
    rows = ()
    for s in tl.static_range(S):
        b_step = raw[s] + b_bias
        if SOFTPLUS:
            b_step = softplus(b_step)
        rows = rows + (tl.where(s < left, b_step, 0.0),)
    return rows


@triton.jit
def advance(b_h, b_decay, b_step, b_u, b_B):
    """The state ``[BN, BD]`` after a step."""
    return b_decay * b_h + b_B[:, None] * (b_step * b_u)[None, :]


@triton.jit
def locate(cu_seqlens, T, D: tl.constexpr, G: tl.constexpr, BD: tl.constexpr, PACKED: tl.constexpr):
    """This program's sequence, its first step and length, group of channels, and block of that group."""
    P: tl.constexpr = D // G
    blocks = tl.cdiv(P, BD)
    i_b = tl.program_id(0) % blocks
    i_g = tl.program_id(0) // blocks % G
    i_n = tl.program_id(0) // (blocks * G)
    if PACKED:
        begin = tl.load(cu_seqlens + i_n).to(tl.int64)
        length = (tl.load(cu_seqlens + i_n + 1).to(tl.int64) - begin).to(tl.int32)
    else:
        begin = i_n.to(tl.int64) * T
        length = T
    return i_n.to(tl.int64), begin, length, i_g, i_b


@triton.jit(do_not_specialize=["T"])
def output_kernel(
    u,
    delta,
    A,
    B,
    C,
    skip,
    z,
    bias,
    y,
    states,
    start,
    end,
    cu_seqlens,
    T,
    D: tl.constexpr,
    G: tl.constexpr,
    N: tl.constexpr,
    BN: tl.constexpr,
    BD: tl.constexpr,
    S: tl.constexpr,
    SPAN: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    HAS_SKIP: tl.constexpr,
    HAS_GATE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_START: tl.constexpr,
    SAVE_STATES: tl.constexpr,
    PACKED: tl.constexpr,
):
    """``h = e^(delta A) h + delta u B, y = (h C + D u) silu(z)``, and where asked the state before each span."""
    P: tl.constexpr = D // G
    i_n, begin, length, i_g, i_b = locate(cu_seqlens, T, D, G, BD, PACKED)
    o_p, o_n = i_b * BD + tl.arange(0, BD), tl.arange(0, BN)
    o_d, m_d, m_n = i_g * P + o_p, o_p < P, o_n < N
    o_dn, m = o_d[None, :] * N + o_n[:, None], m_n[:, None] & m_d[None, :]
    b_rates = tl.load(A + o_dn, mask=m, other=0.0).to(tl.float32) * LOG2E
    b_skip = tl.load(skip + o_d, mask=m_d, other=0.0).to(tl.float32) if HAS_SKIP else 0.0
    b_bias = tl.load(bias + o_d, mask=m_d, other=0.0).to(tl.float32) if HAS_BIAS else 0.0

    b_h = tl.zeros([BN, BD], dtype=tl.float32)
    if HAS_START:
        b_h += tl.load(start + i_n * D * N + o_dn, mask=m, other=0.0).to(tl.float32)
    for i_t in range(0, length, S):
        left = length - i_t
        o_t, o_g = (begin + i_t) * D, ((begin + i_t) * G + i_g) * N
        if SAVE_STATES:
            p_h = states + ((begin // SPAN + i_n + i_t // SPAN) * G + i_g) * N * P + o_n[:, None] * P + o_p[None, :]
            tl.store(p_h, b_h, mask=m & (i_t % SPAN == 0))
        u_s = load_rows(u + o_t, D, left, o_d, m_d, S)
        step_s = step_sizes(load_rows(delta + o_t, D, left, o_d, m_d, S), b_bias, left, SOFTPLUS, S)
        B_s, C_s = load_rows(B + o_g, G * N, left, o_n, m_n, S), load_rows(C + o_g, G * N, left, o_n, m_n, S)
        if HAS_GATE:
            z_s = load_rows(z + o_t, D, left, o_d, m_d, S)
        for s in tl.static_range(S):
            b_h = advance(b_h, tl.exp2(step_s[s][None, :] * b_rates), step_s[s], u_s[s], B_s[s])
            b_y = tl.sum(b_h * C_s[s][:, None], 0) + b_skip * u_s[s]
            if HAS_GATE:
                b_y *= z_s[s] * tl.sigmoid(z_s[s])
            tl.store(y + o_t + s * D + o_d, b_y.to(y.dtype.element_ty), mask=m_d & (s < left))
    tl.store(end + i_n * D * N + o_dn, b_h, mask=m)


@triton.jit(do_not_specialize=["T", "STEPS"])
def gradient_kernel(
    u,
    delta,
    A,
    B,
    C,
    skip,
    z,
    bias,
    states,
    tiles,
    dy,
    dend,
    du,
    ddelta,
    dA,
    dB,
    dC,
    dskip,
    dz,
    dbias,
    dstart,
    cu_seqlens,
    T,
    STEPS,
    D: tl.constexpr,
    G: tl.constexpr,
    N: tl.constexpr,
    BN: tl.constexpr,
    BD: tl.constexpr,
    S: tl.constexpr,
    SPAN: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    HAS_SKIP: tl.constexpr,
    HAS_GATE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_END: tl.constexpr,
    PACKED: tl.constexpr,
):
    """Every gradient, from the last span to the first, with the states of a span computed again from its first.

    ``dh_t = C_t dy_t + e_{t+1}`` and ``e_t = e^(delta_t A) dh_t``. Those of B and C are of this block's channels,
    those of what channels have one of are of this sequence. STEPS are those of the whole batch.
    """
    P: tl.constexpr = D // G
    i_n, begin, length, i_g, i_b = locate(cu_seqlens, T, D, G, BD, PACKED)
    o_p, o_n = i_b * BD + tl.arange(0, BD), tl.arange(0, BN)
    o_d, m_d, m_n = i_g * P + o_p, o_p < P, o_n < N
    o_dn, m = o_d[None, :] * N + o_n[:, None], m_n[:, None] & m_d[None, :]
    o_np = o_n[:, None] * P + o_p[None, :]
    b_rates = tl.load(A + o_dn, mask=m, other=0.0).to(tl.float32) * LOG2E
    b_skip = tl.load(skip + o_d, mask=m_d, other=0.0).to(tl.float32) if HAS_SKIP else 0.0
    b_bias = tl.load(bias + o_d, mask=m_d, other=0.0).to(tl.float32) if HAS_BIAS else 0.0
    # This program's own: the state before each tile of a span.
    p_tile = tiles + (i_n * G + i_g) * (SPAN // S) * N * P + o_np

    b_dh = tl.zeros([BN, BD], dtype=tl.float32)
    if HAS_END:
        b_dh += tl.load(dend + i_n * D * N + o_dn, mask=m, other=0.0).to(tl.float32)
    b_dA = tl.zeros([BN, BD], dtype=tl.float32)
    b_dskip = tl.zeros([BD], dtype=tl.float32)
    b_dbias = tl.zeros([BD], dtype=tl.float32)
    spans = tl.cdiv(length, SPAN)
    for i in range(0, spans):
        i_span = spans - 1 - i
        first = i_span * SPAN
        count = tl.cdiv(tl.minimum(SPAN, length - first), S)
        p_h = states + ((begin // SPAN + i_n + i_span) * G + i_g) * N * P + o_np
        b_h = tl.load(p_h, mask=m, other=0.0)
        for j in range(0, count):
            i_t = first + j * S
            left = length - i_t
            o_t, o_g = (begin + i_t) * D, ((begin + i_t) * G + i_g) * N
            tl.store(p_tile + j * N * P, b_h, mask=m)
            u_s = load_rows(u + o_t, D, left, o_d, m_d, S)
            step_s = step_sizes(load_rows(delta + o_t, D, left, o_d, m_d, S), b_bias, left, SOFTPLUS, S)
            B_s = load_rows(B + o_g, G * N, left, o_n, m_n, S)
            for s in tl.static_range(S):
                b_h = advance(b_h, tl.exp2(step_s[s][None, :] * b_rates), step_s[s], u_s[s], B_s[s])
        # What one thread stored another may load.
        tl.debug_barrier()
        for j in range(0, count):
            i_t = first + (count - 1 - j) * S
            left = length - i_t
            o_t, o_g = (begin + i_t) * D, ((begin + i_t) * G + i_g) * N
            u_s, dy_s = load_rows(u + o_t, D, left, o_d, m_d, S), load_rows(dy + o_t, D, left, o_d, m_d, S)
            raw_s = load_rows(delta + o_t, D, left, o_d, m_d, S)
            step_s = step_sizes(raw_s, b_bias, left, SOFTPLUS, S)
            B_s, C_s = load_rows(B + o_g, G * N, left, o_n, m_n, S), load_rows(C + o_g, G * N, left, o_n, m_n, S)
            if HAS_GATE:
                z_s = load_rows(z + o_t, D, left, o_d, m_d, S)
            b_h = tl.load(p_tile + (count - 1 - j) * N * P, mask=m, other=0.0)
            h_s, decay_s = (b_h,), ()
            for s in tl.static_range(S):
                b_decay = tl.exp2(step_s[s][None, :] * b_rates)
                b_h = advance(b_h, b_decay, step_s[s], u_s[s], B_s[s])
                h_s, decay_s = h_s + (b_h,), decay_s + (b_decay,)
            for s in tl.static_range(S - 1, -1, -1):
                m_t = m_d & (s < left)
                b_dread = dy_s[s]
                if HAS_GATE:
                    b_y = tl.sum(h_s[s + 1] * C_s[s][:, None], 0) + b_skip * u_s[s]
                    b_sigmoid = tl.sigmoid(z_s[s])
                    b_dz = b_dread * b_y * b_sigmoid * (1.0 + z_s[s] * (1.0 - b_sigmoid))
                    tl.store(dz + o_t + s * D + o_d, b_dz.to(dz.dtype.element_ty), mask=m_t)
                    b_dread *= z_s[s] * b_sigmoid
                o_part = ((i_b.to(tl.int64) * STEPS + begin + i_t + s) * G + i_g) * N + o_n
                m_part = m_n & (s < left)
                tl.store(dC + o_part, tl.sum(h_s[s + 1] * b_dread[None, :], 1), mask=m_part)
                b_dh += C_s[s][:, None] * b_dread[None, :]
                tl.store(dB + o_part, tl.sum(b_dh * (step_s[s] * u_s[s])[None, :], 1), mask=m_part)
                b_dinput = tl.sum(b_dh * B_s[s][:, None], 0)
                b_dh *= decay_s[s]
                b_dexponent = b_dh * h_s[s]
                b_dA += b_dexponent * step_s[s][None, :]
                b_ddelta = b_dinput * u_s[s] + tl.sum(b_dexponent * b_rates, 0) * (1.0 / LOG2E)
                if SOFTPLUS:
                    b_ddelta *= tl.sigmoid(raw_s[s] + b_bias)
                b_du = b_dinput * step_s[s] + b_skip * b_dread
                tl.store(du + o_t + s * D + o_d, b_du.to(du.dtype.element_ty), mask=m_t)
                tl.store(ddelta + o_t + s * D + o_d, b_ddelta.to(ddelta.dtype.element_ty), mask=m_t)
                b_dskip += b_dread * u_s[s]
                b_dbias += tl.where(m_t, b_ddelta, 0.0)
        tl.debug_barrier()
    tl.store(dA + i_n * D * N + o_dn, b_dA, mask=m)
    tl.store(dstart + i_n * D * N + o_dn, b_dh, mask=m)
    if HAS_SKIP:
        tl.store(dskip + i_n * D + o_d, b_dskip, mask=m_d)
    if HAS_BIAS:
        tl.store(dbias + i_n * D + o_d, b_dbias, mask=m_d)
