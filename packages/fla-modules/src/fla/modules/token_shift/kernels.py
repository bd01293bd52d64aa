"""Triton kernels of the token shift.

Letters: T time, D channels; BT and BD steps and channels in a block; ``b_`` a loaded block, ``o_`` offsets.
"""

import triton
import triton.language as tl

from fla.modules.convolution.kernels import locate_block


@triton.jit(do_not_specialize=["T"])
def token_shift_fwd_kernel(
    x,  # [B, T, D]
    cache,  # [N, D], or None
    y,  # [B, T, D]
    cu_seqlens,  # [N + 1], or None
    sequence,  # [blocks of time], or None
    first_block,  # [N + 1], or None
    T,
    D: tl.constexpr,
    BT: tl.constexpr,
    BD: tl.constexpr,
    PACKED: tl.constexpr,
):
    i_n, begin, offset, length = locate_block(tl.program_id(0), cu_seqlens, sequence, first_block, T, BT, PACKED)
    o_t = offset + tl.arange(0, BT)[:, None]
    o_d = tl.program_id(1) * BD + tl.arange(0, BD)[None, :]
    mask = (o_t < length) & (o_d < D)
    o_x = (begin + o_t) * D + o_d
    b_x = tl.load(x + o_x, mask=mask, other=0.0).to(tl.float32)
    # All but the first row of the block have just been loaded, so this costs no traffic to device memory.
    b_previous = tl.load(x + o_x - D, mask=mask & (o_t > 0), other=0.0).to(tl.float32)
    if cache is not None:
        o_cache = i_n.to(tl.int64) * D + o_d
        b_previous += tl.load(cache + o_cache, mask=mask & (o_t == 0), other=0.0).to(tl.float32)
    tl.store(y + o_x, (b_previous - b_x).to(y.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["T"])
def token_shift_bwd_kernel(
    dy,  # [B, T, D]
    dx,  # [B, T, D]
    dcache,  # [N, D], or None
    cu_seqlens,  # [N + 1], or None
    sequence,  # [blocks of time], or None
    first_block,  # [N + 1], or None
    T,
    D: tl.constexpr,
    BT: tl.constexpr,
    BD: tl.constexpr,
    PACKED: tl.constexpr,
):
    """``dx_t = dy_{t+1} - dy_t``; the first step's gradient goes to the cache."""
    i_n, begin, offset, length = locate_block(tl.program_id(0), cu_seqlens, sequence, first_block, T, BT, PACKED)
    o_t = offset + tl.arange(0, BT)[:, None]
    o_d = tl.program_id(1) * BD + tl.arange(0, BD)[None, :]
    mask = (o_t < length) & (o_d < D)
    o_x = (begin + o_t) * D + o_d
    b_dy = tl.load(dy + o_x, mask=mask, other=0.0).to(tl.float32)
    b_next = tl.load(dy + o_x + D, mask=mask & (o_t < length - 1), other=0.0).to(tl.float32)
    tl.store(dx + o_x, (b_next - b_dy).to(dx.dtype.element_ty), mask=mask)
    if dcache is not None:
        o_cache = i_n.to(tl.int64) * D + tl.broadcast_to(o_d, BT, BD)
        tl.store(dcache + o_cache, b_dy.to(dcache.dtype.element_ty), mask=mask & (o_t == 0))
