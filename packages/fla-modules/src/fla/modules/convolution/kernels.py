"""Triton kernels of the short convolution.

Letters: T time, D channels, W filter width; BT and BD steps and channels in a block, P steps loaded at once; ``b_`` a
loaded block, ``o_`` offsets, ``m_`` a mask, ``i_`` a program or loop index.
"""

import triton
import triton.language as tl


@triton.jit
def locate_block(i_t, cu_seqlens, sequence, first_block, T, BT: tl.constexpr, PACKED: tl.constexpr):
    """The sequence of time block ``i_t``, its first step among all steps, its start within the sequence, the length."""
    if PACKED:
        i_n = tl.load(sequence + i_t)
        if i_n < 0:
            i_n = tl.zeros([], dtype=tl.int32)
            begin = tl.zeros([], dtype=tl.int64)
            length = tl.zeros([], dtype=tl.int32)
            offset = tl.zeros([], dtype=tl.int32)
        else:
            begin = tl.load(cu_seqlens + i_n).to(tl.int64)
            length = (tl.load(cu_seqlens + i_n + 1).to(tl.int64) - begin).to(tl.int32)
            offset = ((i_t - tl.load(first_block + i_n)) * BT).to(tl.int32)
    else:
        blocks = tl.cdiv(T, BT)
        i_n = (i_t // blocks).to(tl.int32)
        begin = (i_t // blocks).to(tl.int64) * T
        length = (T + tl.zeros([], dtype=tl.int32)).to(tl.int32)
        offset = ((i_t % blocks) * BT).to(tl.int32)
    return i_n, begin, offset, length


@triton.jit
def load_taps(weight, o_d, m_d, W: tl.constexpr):
    """The filters of a block of channels, tap by tap."""
    taps = ()
    for w in tl.static_range(W):
        taps = taps + (tl.load(weight + o_d * W + w, mask=m_d, other=0.0).to(tl.float32),)
    return taps


@triton.jit
def load_before(x, state, offset, o_d, m_d, D: tl.constexpr, W: tl.constexpr, HAS_STATE: tl.constexpr):
    """The W - 1 inputs before step ``offset``, to which ``x`` points: before step 0 those of the initial state."""
    window = ()
    for w in tl.static_range(W - 1):
        step = offset - (W - 1) + w
        b_x = tl.load(x + (w - W + 1) * D + o_d, mask=m_d & (step >= 0), other=0.0).to(tl.float32)
        if HAS_STATE:
            b_x += tl.load(state + o_d * W + (W + step), mask=m_d & (step < 0), other=0.0).to(tl.float32)
        window = window + (b_x,)
    return window


@triton.jit
def load_rows(x, start, rows, o_d, m_d, D: tl.constexpr, P: tl.constexpr):
    """P steps at once, before any of them is used: so many loads are under way together."""
    loaded = ()
    for p in tl.static_range(P):
        loaded = loaded + (tl.load(x + (start + p) * D + o_d, mask=m_d & (start + p < rows), other=0.0),)
    return loaded


@triton.jit
def filtered(window, taps, W: tl.constexpr):
    """``sum_w taps_w window_w``."""
    b_y = window[0] * taps[0]
    for w in tl.static_range(1, W):
        b_y += window[w] * taps[w]
    return b_y


@triton.jit
def before_activation(b_dy, window, taps, b_bias, W: tl.constexpr, ACTIVATE: tl.constexpr):
    """The gradient of a step before the activation."""
    if ACTIVATE:
        b_z = filtered(window, taps, W) + b_bias
        b_sigmoid = tl.sigmoid(b_z)
        b_dy *= b_sigmoid * (1 + b_z * (1 - b_sigmoid))
    return b_dy


@triton.jit(do_not_specialize=["T"])
def conv_fwd_kernel(
    x,  # [B, T, D]
    weight,  # [D, W]
    bias,  # [D], or None
    residual,  # [B, T, D], or None
    initial_state,  # [N, D, W], or None
    y,  # [B, T, D]
    cu_seqlens,  # [N + 1], or None
    sequence,  # [blocks of time], or None
    first_block,  # [N + 1], or None
    T,
    D: tl.constexpr,
    W: tl.constexpr,
    BT: tl.constexpr,
    BD: tl.constexpr,
    P: tl.constexpr,
    ACTIVATE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    HAS_STATE: tl.constexpr,
    PACKED: tl.constexpr,
):
    """BT steps one after the other, the last W inputs in registers: every input is loaded once."""
    i_n, begin, offset, length = locate_block(tl.program_id(0), cu_seqlens, sequence, first_block, T, BT, PACKED)
    if offset >= length:
        return
    o_d = tl.program_id(1) * BD + tl.arange(0, BD)
    m_d = o_d < D
    rows = tl.minimum(length - offset, BT)
    first = (begin + offset) * D
    if HAS_STATE:
        initial_state += i_n.to(tl.int64) * D * W
    taps = load_taps(weight, o_d, m_d, W)
    b_bias = tl.zeros([BD], dtype=tl.float32)
    if HAS_BIAS:
        b_bias += tl.load(bias + o_d, mask=m_d, other=0.0).to(tl.float32)
    window = load_before(x + first, initial_state, offset, o_d, m_d, D, W, HAS_STATE)
    for start in range(0, rows, P):
        new = load_rows(x + first, start, rows, o_d, m_d, D, P)
        if HAS_RESIDUAL:
            added = load_rows(residual + first, start, rows, o_d, m_d, D, P)
        for p in tl.static_range(P):
            window = window + (new[p].to(tl.float32),)
            b_y = filtered(window, taps, W) + b_bias
            window = window[1:]
            if ACTIVATE:
                b_y = b_y * tl.sigmoid(b_y)
            if HAS_RESIDUAL:
                b_y += added[p].to(tl.float32)
            step = start + p
            tl.store(y + first + step * D + o_d, b_y.to(y.dtype.element_ty), mask=m_d & (step < rows))


@triton.jit(do_not_specialize=["T", "blocks"])
def conv_bwd_kernel(
    x,  # [B, T, D]
    weight,  # [D, W]
    bias,  # [D], or None
    initial_state,  # [N, D, W], or None
    dy,  # [B, T, D]
    dx,  # [B, T, D]
    dweight,  # [programs of a block of channels, D, W]
    dbias,  # [programs of a block of channels, D], or None
    cu_seqlens,  # [N + 1], or None
    sequence,  # [blocks of time], or None
    first_block,  # [N + 1], or None
    T,
    blocks,  # of time in all
    D: tl.constexpr,
    W: tl.constexpr,
    BT: tl.constexpr,
    BD: tl.constexpr,
    P: tl.constexpr,
    ACTIVATE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_STATE: tl.constexpr,
    PACKED: tl.constexpr,
):
    """Every ``num_programs``-th block of BT steps, one step after the other.

    The last W inputs and the last W gradients before the activation stay in registers. dx lags W - 1 steps behind,
    ``dx_t = sum_s weight_{W-1-s} dz_{t+s}``, so a block reads W - 1 steps of the next one.
    """
    i_p = tl.program_id(0)
    o_d = tl.program_id(1) * BD + tl.arange(0, BD)
    m_d = o_d < D
    taps = load_taps(weight, o_d, m_d, W)
    turned = ()
    dtaps = ()
    for w in tl.static_range(W):
        turned = turned + (taps[W - 1 - w],)
        dtaps = dtaps + (tl.zeros([BD], dtype=tl.float32),)
    b_bias = tl.zeros([BD], dtype=tl.float32)
    if HAS_BIAS:
        b_bias += tl.load(bias + o_d, mask=m_d, other=0.0).to(tl.float32)
    b_db = tl.zeros([BD], dtype=tl.float32)
    for i_t in range(i_p, blocks, tl.num_programs(0)):
        i_n, begin, offset, length = locate_block(i_t, cu_seqlens, sequence, first_block, T, BT, PACKED)
        rows = tl.minimum(length - offset, BT)
        first = (begin + offset) * D
        state = initial_state
        if HAS_STATE:
            state += i_n.to(tl.int64) * D * W
        window = load_before(x + first, state, offset, o_d, m_d, D, W, HAS_STATE)
        recent = ()
        for _ in tl.static_range(W - 1):
            recent = recent + (tl.zeros([BD], dtype=tl.float32),)
        for start in range(0, rows, P):
            new_x = load_rows(x + first, start, rows, o_d, m_d, D, P)
            new_dy = load_rows(dy + first, start, rows, o_d, m_d, D, P)
            for p in tl.static_range(P):
                window = window + (new_x[p].to(tl.float32),)
                b_dz = before_activation(new_dy[p].to(tl.float32), window, taps, b_bias, W, ACTIVATE)
                b_db += b_dz
                sums = ()
                for w in tl.static_range(W):
                    sums = sums + (dtaps[w] + b_dz * window[w],)
                dtaps = sums
                recent = recent + (b_dz,)
                step = start + p - (W - 1)
                b_dx = filtered(recent, turned, W).to(dx.dtype.element_ty)
                tl.store(dx + first + step * D + o_d, b_dx, mask=m_d & (step >= 0) & (step < rows))
                window, recent = window[1:], recent[1:]
        done = tl.cdiv(rows, P) * P
        next_x = load_rows(x + first, done, length - offset, o_d, m_d, D, W - 1)
        next_dy = load_rows(dy + first, done, length - offset, o_d, m_d, D, W - 1)
        for p in tl.static_range(W - 1):
            window = window + (next_x[p].to(tl.float32),)
            recent = recent + (before_activation(next_dy[p].to(tl.float32), window, taps, b_bias, W, ACTIVATE),)
            step = done + p - (W - 1)
            b_dx = filtered(recent, turned, W).to(dx.dtype.element_ty)
            tl.store(dx + first + step * D + o_d, b_dx, mask=m_d & (step >= 0) & (step < rows))
            window, recent = window[1:], recent[1:]
    for w in tl.static_range(W):
        tl.store(dweight + (i_p * D + o_d) * W + w, dtaps[w], mask=m_d)
    if HAS_BIAS:
        tl.store(dbias + i_p * D + o_d, b_db, mask=m_d)


@triton.jit
def conv_update_kernel(
    x,  # [N, D]
    cache,  # [N, D, W]
    residual,  # [N, D], or None
    weight,  # [D, W]
    bias,  # [D], or None
    y,  # [N, D]
    D: tl.constexpr,
    W: tl.constexpr,
    BW: tl.constexpr,
    BD: tl.constexpr,
    ACTIVATE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
):
    """One step of one sequence, for a block of channels; the cache moves up by one in place."""
    i_n = tl.program_id(0).to(tl.int64)
    o_d, o_w = tl.program_id(1) * BD + tl.arange(0, BD), tl.arange(0, BW)
    m_d = o_d < D
    o_cache = i_n * D * W + o_d[:, None] * W + o_w[None, :]
    m_cache = m_d[:, None] & (o_w < W)[None, :]
    b_x = tl.load(x + i_n * D + o_d, mask=m_d, other=0.0)
    b_cache = tl.load(cache + o_cache + 1, mask=m_d[:, None] & (o_w < W - 1)[None, :], other=0.0)
    b_cache = tl.where((o_w == W - 1)[None, :], b_x.to(b_cache.dtype)[:, None], b_cache)
    b_w = tl.load(weight + o_d[:, None] * W + o_w[None, :], mask=m_cache, other=0.0).to(tl.float32)
    b_y = tl.sum(b_cache.to(tl.float32) * b_w, 1)
    if HAS_BIAS:
        b_y += tl.load(bias + o_d, mask=m_d, other=0.0).to(tl.float32)
    if ACTIVATE:
        b_y = b_y * tl.sigmoid(b_y)
    if HAS_RESIDUAL:
        b_y += tl.load(residual + i_n * D + o_d, mask=m_d, other=0.0).to(tl.float32)
    # Every load of the old cache must be done before the first store into it.
    tl.debug_barrier()
    tl.store(cache + o_cache, b_cache, mask=m_cache)
    tl.store(y + i_n * D + o_d, b_y.to(y.dtype.element_ty), mask=m_d)
