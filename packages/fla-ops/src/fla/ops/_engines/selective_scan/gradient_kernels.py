"""Triton kernel of the selective scan's backward pass; letters and layout as in ``kernels.py``."""

import triton
import triton.language as tl

from fla.ops._engines.selective_scan.kernels import (
    WARP,
    advance,
    decay,
    fetch,
    fetch_shared,
    load_channels,
    load_states,
    locate,
    locate_states,
    over_states,
    spread,
    step_size,
    store_states,
    unpack,
)
from fla.ops._shared.chunk_kernels import LOG2E


@triton.jit
def swap(x):
    """``[M, 2, R, K]`` with the second dimension reversed: between lanes, one shuffle and nothing else."""
    bits = x.to(tl.uint32, bitcast=True)
    return (tl.sum(bits, 1, keep_dims=True) - bits).to(tl.float32, bitcast=True)


@triton.jit
def halve_pieces(x, M: tl.constexpr):
    """Add up pieces over two lanes: ``[2 Q, M * 2 R, J]`` -> ``[Q, M * 2 R, J]``, where each lane keeps Q pieces.

    Every second R lanes hold their first and last Q pieces exchanged, so that all lanes keep the first.
    """
    Q: tl.constexpr = x.shape[0] // 2
    J: tl.constexpr = x.shape[2]
    R: tl.constexpr = x.shape[1] // (2 * M)
    kept, sent = tl.split(tl.permute(tl.reshape(x, [2, Q, M * 2 * R, J]), (1, 2, 3, 0)))
    kept, sent = tl.reshape(kept, [Q * M, 2, R, J]), tl.reshape(sent, [Q * M, 2, R, J])
    return tl.reshape(kept + swap(sent), [Q, M * 2 * R, J])


@triton.jit
def halve_columns(x):
    """Add rows r and R + r: ``[M, 2 R, 2 K]`` -> ``[2 M, R, K]``, where the first R lanes keep the first K columns."""
    M: tl.constexpr = x.shape[0]
    R: tl.constexpr = x.shape[1] // 2
    K: tl.constexpr = x.shape[2] // 2
    a, b = tl.split(tl.permute(tl.reshape(x, [M * 2 * R, 2, K]), (0, 2, 1)))
    a, b = tl.reshape(a, [M, 2, R, K]), tl.reshape(b, [M, 2, R, K])
    second = (tl.arange(0, 2) == 1)[None, :, None, None]
    return tl.reshape(tl.where(second, b, a) + swap(tl.where(second, a, b)), [2 * M, R, K])


@triton.jit
def sum_channels(x):
    """Sums over each warp's channels of ``[Q, BD, J]`` in the order of ``state_columns(MIXED=True)``.

    Each exchange between lanes halves what a lane has left to sum: 15 of them for 16 states, where sums one by one
    would take 80. Returns ``[W * Q * J]``, of W warps.
    """
    Q: tl.constexpr = x.shape[0]
    J: tl.constexpr = x.shape[2]
    W: tl.constexpr = (x.shape[1] + WARP - 1) // WARP
    L: tl.constexpr = x.shape[1] // W
    for i in tl.static_range(8):
        if Q >> i > 1:
            x = halve_pieces(x, W << i)
    x = tl.reshape(x, [W * Q, L // Q, J])
    for i in tl.static_range(8):
        if J >> i > 1 and L // Q >> i > 1:
            x = halve_columns(x)
    return tl.reshape(tl.sum(x, 1), [W * Q * J])


@triton.jit
def store_back(p, stride, rows, m):
    """Store rows of steps that were taken from the last to the first."""
    for i in tl.static_range(len(rows)):
        tl.store(p + (len(rows) - 1 - i) * stride, rows[i].to(p.dtype.element_ty), mask=m)


@triton.jit
def state_tiles(
    h,
    b_A,
    u,
    delta,
    B,
    p_h,
    b_bias,
    m_d,
    m_n,
    tiles,
    D: tl.constexpr,
    GN: tl.constexpr,
    S: tl.constexpr,
    SOFTPLUS: tl.constexpr,
):
    """Store the state before each of ``tiles`` tiles of S steps; return the one after them."""
    ahead, B_ahead = fetch((u, delta), 0, m_d & (tiles > 0), D, S), fetch_shared(B, GN, m_n & (tiles > 0), S)
    for i in range(0, tiles):
        store_states(p_h + i * h.numel, h, None)
        rows, B_s = ahead, B_ahead
        i_next = tl.minimum(i + 1, tiles - 1) * S
        ahead, B_ahead = fetch((u, delta), i_next * D, m_d, D, S), fetch_shared(B + i_next * GN, GN, m_n, S)
        for s in tl.static_range(S):
            b_step = step_size(rows[2 * s + 1].to(tl.float32), b_bias, SOFTPLUS)
            b_decay = decay(b_step, b_A, rows[0].dtype == tl.float32)
            h = advance(h, b_decay, b_step, rows[2 * s].to(tl.float32), unpack(B_s[s], h.shape[1]))
    return h


@triton.jit
def gradient_tiles(
    dh,
    b_dA,
    b_dskip,
    b_dbias,
    b_A,
    p_h,
    u,
    delta,
    B,
    C,
    z,
    dy,
    du,
    ddelta,
    dB,
    dC,
    dz,
    b_skip,
    b_bias,
    m_d,
    m_n,
    m_sum,
    tiles,
    D: tl.constexpr,
    GN: tl.constexpr,
    S: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    HAS_GATE: tl.constexpr,
):
    """Gradients of ``tiles`` tiles of S steps, from the last to the first, and what they leave to the steps before.

    ``dh_t = C_t dy_t + e_{t+1}`` and ``e_t = e^(delta_t A) dh_t``.
    """
    BD: tl.constexpr = dh.shape[1]
    operands = (u, delta, dy, z) if HAS_GATE else (u, delta, dy)
    R: tl.constexpr = 4 if HAS_GATE else 3
    # Fetch the last tile
    m_ahead, i_t = tiles > 0, (tiles - 1) * S
    ahead = fetch(operands, i_t * D, m_d & m_ahead, D, S)
    B_ahead = fetch_shared(B + i_t * GN, GN, m_n & m_ahead, S)
    C_ahead = fetch_shared(C + i_t * GN, GN, m_n & m_ahead, S)
    for i in range(tiles - 1, -1, -1):
        # Take what was fetched, and fetch the tile before
        o_t, o_g, i_next = i * S * D, i * S * GN, tl.maximum(i - 1, 0) * S
        rows, B_s, C_s = ahead, B_ahead, C_ahead
        ahead = fetch(operands, i_next * D, m_d, D, S)
        B_ahead = fetch_shared(B + i_next * GN, GN, m_n, S)
        C_ahead = fetch_shared(C + i_next * GN, GN, m_n, S)
        # Compute the tile's states again, forward
        h_s, decay_s, step_s = (load_states(p_h + i * dh.numel, None, BD),), (), ()
        for s in tl.static_range(S):
            b_step = step_size(rows[R * s + 1].to(tl.float32), b_bias, SOFTPLUS)
            step_s, decay_s = step_s + (b_step,), decay_s + (decay(b_step, b_A, rows[0].dtype == tl.float32),)
            h_s = h_s + (advance(h_s[s], decay_s[s], b_step, rows[R * s].to(tl.float32), unpack(B_s[s], BD)),)
        # Gradients of its steps, in reverse
        du_s, ddelta_s, dB_s, dC_s, dz_s = (), (), (), (), ()
        for s in tl.static_range(S - 1, -1, -1):
            b_u, b_dread, b_C = rows[R * s].to(tl.float32), rows[R * s + 2].to(tl.float32), unpack(C_s[s], BD)
            if HAS_GATE:
                b_z = rows[R * s + 3].to(tl.float32)
                b_y, b_sigmoid = over_states(h_s[s + 1] * b_C) + b_skip * b_u, tl.sigmoid(b_z)
                dz_s = dz_s + (b_dread * b_y * b_sigmoid * (1.0 + b_z * (1.0 - b_sigmoid)),)
                b_dread *= b_z * b_sigmoid
            dC_s = dC_s + (sum_channels(h_s[s + 1] * spread(b_dread)),)
            dh += b_C * spread(b_dread)
            dB_s = dB_s + (sum_channels(dh * spread(step_s[s] * b_u)),)
            b_dinput = over_states(dh * unpack(B_s[s], BD))
            dh *= decay_s[s]
            b_dexponent = dh * h_s[s]
            b_dA += b_dexponent * spread(step_s[s])
            b_ddelta = b_dinput * b_u + over_states(b_dexponent * b_A)
            if SOFTPLUS:
                # Sigmoid of the softplus's argument
                b_ddelta *= tl.exp2((rows[R * s + 1].to(tl.float32) + b_bias - step_s[s]) * LOG2E)
            du_s = du_s + (b_dinput * step_s[s] + b_skip * b_dread,)
            ddelta_s = ddelta_s + (b_ddelta,)
            b_dskip += b_dread * b_u
            b_dbias += b_ddelta
        # Store last: the compiler moves no load over a store
        store_back(du + o_t, D, du_s, m_d)
        store_back(ddelta + o_t, D, ddelta_s, m_d)
        store_back(dB + o_g, GN, dB_s, m_sum)
        store_back(dC + o_g, GN, dC_s, m_sum)
        if HAS_GATE:
            store_back(dz + o_t, D, dz_s, m_d)
    return dh, b_dA, b_dskip, b_dbias


@triton.jit(do_not_specialize=["T", "STEPS"])
def selective_scan_bwd_kernel(
    u,  # [B, T, D]
    delta,  # [B, T, D]
    A,  # [D, N]
    B,  # [B, T, G, N]
    C,  # [B, T, G, N]
    skip,  # [D], or None
    z,  # [B, T, D], or None
    bias,  # [D], or None
    states,  # [spans in all, D, N]: before each span
    tiles,  # [programs, SPAN / S + S - 1, Q * BD, J]: scratch, the state before each tile of a span
    dy,  # [B, T, D]
    dend,  # [sequences, D, N], or None
    du,  # [B, T, D]
    ddelta,  # [B, T, D]
    dA,  # [sequences, D, N]
    dB,  # [warps of a group, B, T, G, N]
    dC,  # [warps of a group, B, T, G, N]
    dskip,  # [sequences, D], left as it is without the operand
    dz,  # [B, T, D], empty without z
    dbias,  # [sequences, D], left as it is without the operand
    dstart,  # [sequences, D, N]
    cu_seqlens,  # [sequences + 1], or None
    T,
    STEPS,  # B * T
    D: tl.constexpr,
    G: tl.constexpr,
    N: tl.constexpr,
    Q: tl.constexpr,
    J: tl.constexpr,
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

    Those of B and C are summed over each warp's channels, those of A, skip and bias over this sequence.
    """
    i_n, begin, length, i_g, i_b = locate(cu_seqlens, T, D, G, BD, PACKED)
    o_d, m_d, o_n, m_n, o_dn, m_dn = locate_states(i_g, i_b, D, G, N, Q, J, BD, True)
    # Parameters of the channels
    b_A = load_states(A + o_dn, m_dn, BD)
    b_skip, b_bias = load_channels(skip, o_d, m_d, HAS_SKIP), load_channels(bias, o_d, m_d, HAS_BIAS)
    # Scratch of this program: the states before the tiles of a span
    p_h = tiles + tl.program_id(0).to(tl.int64) * (SPAN // S + S - 1) * Q * BD * J
    p_h += tl.arange(0, Q * BD)[:, None] * J + tl.arange(0, J)[None, :]
    # Offsets of the sums over channels, warp after warp
    W: tl.constexpr = (BD + WARP - 1) // WARP
    o_sum = tl.arange(0, W * Q * J)
    m_sum = (o_sum % (Q * J) < N) | (Q * J == N)
    o_sum = (i_b.to(tl.int64) * W + o_sum // (Q * J)) * STEPS * G * N + o_sum % (Q * J)

    # Gradient of the state after the last step, and the sums over all spans
    dh = tl.zeros([Q, BD, J], dtype=tl.float32)
    store_states(dA + i_n * D * N + o_dn, dh, m_dn)
    if HAS_END:
        dh += load_states(dend + i_n * D * N + o_dn, m_dn, BD)
    sum_dskip, sum_dbias = tl.zeros([BD], dtype=tl.float32), tl.zeros([BD], dtype=tl.float32)
    spans = tl.cdiv(length, SPAN)
    for i in range(0, spans):
        # Locate the span, and load the state before it
        i_span = spans - 1 - i
        first = begin + i_span * SPAN
        steps = tl.minimum(SPAN, length - i_span * SPAN)
        h = load_states(states + (begin // SPAN + i_n + i_span) * D * N + o_dn, m_dn, BD)
        # Compute the states of the span again: whole tiles, then the steps that are left
        for part in tl.static_range(2):
            i_t = first + part * (steps // S * S)
            o_t, o_g = i_t * D + o_d, (i_t * G + i_g) * N + o_n
            h = state_tiles(
                h,
                b_A,
                u + o_t,
                delta + o_t,
                B + o_g,
                p_h + part * (steps // S) * Q * BD * J,
                b_bias,
                m_d,
                m_n,
                steps % S if part else steps // S,
                D,
                G * N,
                1 if part else S,
                SOFTPLUS,
            )
        # Wait: a thread may load what another stored
        tl.debug_barrier()
        # Sum each span by itself: rounding errors of a sum grow with its length
        b_dA = tl.zeros([Q, BD, J], dtype=tl.float32)
        b_dskip, b_dbias = tl.zeros([BD], dtype=tl.float32), tl.zeros([BD], dtype=tl.float32)
        # Take gradients in reverse: of the steps that are left, then of whole tiles
        for part in tl.static_range(1, -1, -1):
            i_t = first + part * (steps // S * S)
            o_t, o_g, o_s = i_t * D + o_d, (i_t * G + i_g) * N + o_n, (i_t * G + i_g) * N + o_sum
            dh, b_dA, b_dskip, b_dbias = gradient_tiles(
                dh,
                b_dA,
                b_dskip,
                b_dbias,
                b_A,
                p_h + part * (steps // S) * Q * BD * J,
                u + o_t,
                delta + o_t,
                B + o_g,
                C + o_g,
                z + o_t if HAS_GATE else None,
                dy + o_t,
                du + o_t,
                ddelta + o_t,
                dB + o_s,
                dC + o_s,
                dz + o_t if HAS_GATE else None,
                b_skip,
                b_bias,
                m_d,
                m_n,
                m_sum,
                steps % S if part else steps // S,
                D,
                G * N,
                1 if part else S,
                SOFTPLUS,
                HAS_GATE,
            )
        # Add the span's sums to those of the sequence
        sum_dskip += b_dskip
        sum_dbias += b_dbias
        # Sum dA in memory: there are no registers left
        store_states(dA + i_n * D * N + o_dn, b_dA + load_states(dA + i_n * D * N + o_dn, m_dn, BD), m_dn)
        tl.debug_barrier()
    store_states(dstart + i_n * D * N + o_dn, dh, m_dn)
    if HAS_SKIP:
        tl.store(dskip + i_n * D + o_d, sum_dskip, mask=m_d)
    if HAS_BIAS:
        tl.store(dbias + i_n * D + o_d, sum_dbias, mask=m_d)
