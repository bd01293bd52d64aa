"""Triton kernels of the short convolution.

Letters: T time, D channels, W filter width; BT and BD steps and channels in a block; ``b_`` a loaded block, ``o_``
offsets, ``m_`` a mask, ``i_`` a program or loop index.
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
def load_inputs(x, state, o_t, o_d, m_d, length, D: tl.constexpr, W: tl.constexpr, HAS_STATE: tl.constexpr):
    """Inputs at steps ``o_t`` of a sequence that starts at ``x``: before step 0 those of its initial state."""
    b_x = tl.load(x + o_t[:, None] * D + o_d[None, :], mask=((o_t >= 0) & (o_t < length))[:, None] & m_d, other=0.0)
    b_x = b_x.to(tl.float32)
    if HAS_STATE:
        m_state = ((o_t < 0) & (o_t >= -W))[:, None] & m_d
        b_x += tl.load(state + o_d[None, :] * W + (o_t + W)[:, None], mask=m_state, other=0.0).to(tl.float32)
    return b_x


@triton.jit
def filtered(
    x, state, weight, bias, o_t, o_d, m_d, length, D: tl.constexpr, W: tl.constexpr, HAS_STATE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """The filters' outputs at steps ``o_t``, before the activation."""
    b_y = tl.zeros([o_t.shape[0], o_d.shape[0]], dtype=tl.float32)
    for w in tl.static_range(W):
        b_w = tl.load(weight + o_d * W + w, mask=o_d < D, other=0.0).to(tl.float32)
        b_y += load_inputs(x, state, o_t - (W - 1 - w), o_d, m_d, length, D, W, HAS_STATE) * b_w[None, :]
    if HAS_BIAS:
        b_y += tl.load(bias + o_d, mask=o_d < D, other=0.0).to(tl.float32)[None, :]
    return b_y


@triton.jit(do_not_specialize=["T"])
def conv_fwd_kernel(
    x,
    weight,
    bias,
    residual,
    initial_state,
    y,
    cu_seqlens,
    sequence,
    first_block,
    T,
    D: tl.constexpr,
    W: tl.constexpr,
    BT: tl.constexpr,
    BD: tl.constexpr,
    ACTIVATE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    HAS_STATE: tl.constexpr,
    PACKED: tl.constexpr,
):
    i_t = tl.program_id(0)
    i_n, begin, offset, length = locate_block(i_t, cu_seqlens, sequence, first_block, T, BT, PACKED)
    if offset >= length:
        return
    o_d = tl.program_id(1) * BD + tl.arange(0, BD)
    o_t = offset + tl.arange(0, BT)
    m_d = (o_d < D)[None, :]
    if HAS_STATE:
        initial_state += i_n.to(tl.int64) * D * W
    b_y = filtered(x + begin * D, initial_state, weight, bias, o_t, o_d, m_d, length, D, W, HAS_STATE, HAS_BIAS)
    if ACTIVATE:
        b_y = b_y * tl.sigmoid(b_y)
    o_y = o_t[:, None] * D + o_d[None, :]
    m_y = (o_t < length)[:, None] & m_d
    if HAS_RESIDUAL:
        b_y += tl.load(residual + begin * D + o_y, mask=m_y, other=0.0).to(tl.float32)
    tl.store(y + begin * D + o_y, b_y.to(y.dtype.element_ty), mask=m_y)


@triton.jit(do_not_specialize=["T"])
def conv_dz_kernel(
    x,
    weight,
    bias,
    initial_state,
    dy,
    dz,
    cu_seqlens,
    sequence,
    first_block,
    T,
    D: tl.constexpr,
    W: tl.constexpr,
    BT: tl.constexpr,
    BD: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_STATE: tl.constexpr,
    PACKED: tl.constexpr,
):
    """The gradient before the activation: the filters' outputs are computed again for its derivative."""
    i_t = tl.program_id(0)
    i_n, begin, offset, length = locate_block(i_t, cu_seqlens, sequence, first_block, T, BT, PACKED)
    if offset >= length:
        return
    o_d = tl.program_id(1) * BD + tl.arange(0, BD)
    o_t = offset + tl.arange(0, BT)
    m_d = (o_d < D)[None, :]
    if HAS_STATE:
        initial_state += i_n.to(tl.int64) * D * W
    b_z = filtered(x + begin * D, initial_state, weight, bias, o_t, o_d, m_d, length, D, W, HAS_STATE, HAS_BIAS)
    b_sigmoid = tl.sigmoid(b_z)
    o_y = o_t[:, None] * D + o_d[None, :]
    m_y = (o_t < length)[:, None] & m_d
    b_dz = tl.load(dy + begin * D + o_y, mask=m_y, other=0.0).to(tl.float32)
    b_dz *= b_sigmoid * (1 + b_z * (1 - b_sigmoid))
    tl.store(dz + begin * D + o_y, b_dz.to(dz.dtype.element_ty), mask=m_y)


@triton.jit(do_not_specialize=["T"])
def conv_dx_kernel(
    dz,
    weight,
    dx,
    cu_seqlens,
    sequence,
    first_block,
    T,
    D: tl.constexpr,
    W: tl.constexpr,
    BT: tl.constexpr,
    BD: tl.constexpr,
    PACKED: tl.constexpr,
):
    """``dx_t = sum_s weight_{W-1-s} dz_{t+s}``: the convolution turned round in time."""
    i_t = tl.program_id(0)
    _, begin, offset, length = locate_block(i_t, cu_seqlens, sequence, first_block, T, BT, PACKED)
    if offset >= length:
        return
    o_d = tl.program_id(1) * BD + tl.arange(0, BD)
    o_t = offset + tl.arange(0, BT)
    m_d = o_d < D
    b_dx = tl.zeros([BT, BD], dtype=tl.float32)
    for s in tl.static_range(W):
        m_s = (o_t + s < length)[:, None] & m_d[None, :]
        b_dz = tl.load(dz + begin * D + (o_t + s)[:, None] * D + o_d[None, :], mask=m_s, other=0.0).to(tl.float32)
        b_dx += b_dz * tl.load(weight + o_d * W + (W - 1 - s), mask=m_d, other=0.0).to(tl.float32)[None, :]
    m_x = (o_t < length)[:, None] & m_d[None, :]
    tl.store(dx + begin * D + o_t[:, None] * D + o_d[None, :], b_dx.to(dx.dtype.element_ty), mask=m_x)


@triton.jit(do_not_specialize=["T", "blocks"])
def conv_dweight_kernel(
    x,
    initial_state,
    dz,
    dweight,
    cu_seqlens,
    sequence,
    first_block,
    T,
    blocks,
    D: tl.constexpr,
    W: tl.constexpr,
    BT: tl.constexpr,
    BD: tl.constexpr,
    HAS_STATE: tl.constexpr,
    PACKED: tl.constexpr,
):
    """One tap's gradient, or the bias's after the last tap, over every ``num_programs``-th block of steps.

    The taps of one block run side by side, so that all but the first find its inputs in the cache.
    """
    i_w, i_p = tl.program_id(0), tl.program_id(2)
    o_d = tl.program_id(1) * BD + tl.arange(0, BD)
    m_d = (o_d < D)[None, :]
    b_dw = tl.zeros([BT, BD], dtype=tl.float32)
    for i_t in range(i_p, blocks, tl.num_programs(2)):
        i_n, begin, offset, length = locate_block(i_t, cu_seqlens, sequence, first_block, T, BT, PACKED)
        o_t = offset + tl.arange(0, BT)
        m_y = (o_t < length)[:, None] & m_d
        b_dz = tl.load(dz + begin * D + o_t[:, None] * D + o_d[None, :], mask=m_y, other=0.0).to(tl.float32)
        if i_w < W:
            state = initial_state
            if HAS_STATE:
                state += i_n.to(tl.int64) * D * W
            b_dz *= load_inputs(x + begin * D, state, o_t - (W - 1) + i_w, o_d, m_d, length, D, W, HAS_STATE)
        b_dw += b_dz
    tl.store(dweight + (i_p * (W + 1) + i_w) * D + o_d, tl.sum(b_dw, 0), mask=o_d < D)


@triton.jit
def conv_update_kernel(
    x,
    cache,
    residual,
    weight,
    bias,
    y,
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
