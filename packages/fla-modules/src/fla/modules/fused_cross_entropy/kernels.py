"""Triton kernels of the cross entropy over rows of V logits.

Letters: BV classes in a block, seen as ``[BV / BL, BL]``, so that the sums over the first dimension stay within a
thread; ``b_`` a loaded block, ``o_`` offsets. Logits are held times log2(e): ``2^x`` is what the hardware has. Shaped
means ``inner * x``, or with a cap ``outer * tanh(inner * x)``.
"""

import triton
import triton.language as tl


@triton.jit
def shaped(x, inner, outer, CAPPED: tl.constexpr):
    """Logits after scale and cap, times log2(e)."""
    x = x.to(tl.float32) * inner
    if CAPPED:
        x = outer * (2 * tl.sigmoid(2 * x) - 1)
    return x


@triton.jit
def block_offsets(i_v, BV: tl.constexpr, BL: tl.constexpr):
    """The classes of block ``i_v``."""
    return i_v * BV + tl.arange(0, BV // BL)[:, None] * BL + tl.arange(0, BL)[None, :]


@triton.jit
def add_block(
    b_max, b_sum, b_total, logits, i_v, inner, outer,
    V: tl.constexpr, BV: tl.constexpr, BL: tl.constexpr, CAPPED: tl.constexpr, TOTAL: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """One step of the online softmax, in each of the BL lanes for itself."""
    o_v = block_offsets(i_v, BV, BL)
    if WHOLE:
        b_x = shaped(tl.load(logits + o_v), inner, outer, CAPPED)
        b_counted = b_x
    else:
        b_x = shaped(tl.load(logits + o_v, mask=o_v < V, other=0.0), inner, outer, CAPPED)
        b_counted = b_x
        b_x = tl.where(o_v < V, b_x, float("-inf"))
    b_new = tl.maximum(b_max, tl.max(b_x, 0))
    # A lane that has met no finite logit yet would subtract infinity from infinity.
    b_shift = tl.where(b_new == float("-inf"), 0.0, b_new)
    b_sum = b_sum * tl.exp2(b_max - b_shift) + tl.sum(tl.exp2(b_x - b_shift[None, :]), 0)
    if TOTAL:
        # Past the end stand zeros.
        b_total += tl.sum(b_counted, 0)
    return b_new, b_sum, b_total


@triton.jit
def gradient_block(
    logits, dlogits, o_v, column, lse, factor, z, peak, smoothed, inner, outer,
    V: tl.constexpr, CAPPED: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """``factor * (z * 2^(x - lse) - smoothed)`` at every class, ``factor * peak`` less at the target's."""
    if WHOLE:
        b_x = tl.load(logits + o_v)
    else:
        b_x = tl.load(logits + o_v, mask=o_v < V, other=0.0)
    b_x = shaped(b_x, inner, outer, CAPPED)
    b_dx = z * tl.exp2(b_x - lse) - smoothed - tl.where(o_v == column, peak, 0.0)
    if CAPPED:
        b_dx *= 1 - (b_x / outer) * (b_x / outer)
    b_dx = (b_dx * factor).to(dlogits.dtype.element_ty)
    if WHOLE:
        tl.store(dlogits + o_v, b_dx)
    else:
        tl.store(dlogits + o_v, b_dx, mask=o_v < V)


@triton.jit(do_not_specialize=["first", "ignore_index"])
def cross_entropy_statistics_kernel(
    logits,  # [rows, V]
    target,  # [rows]
    lse,  # [rows]
    at_target,  # [rows]
    total,  # [rows], written only where TOTAL
    inner,
    outer,
    first,
    ignore_index,
    scale,
    peak,
    smoothed,
    V: tl.constexpr,
    BV: tl.constexpr,
    BL: tl.constexpr,
    CAPPED: tl.constexpr,
    TOTAL: tl.constexpr,
    GRADIENT: tl.constexpr,
):
    """One row: log-sum-exp in one pass, the target's logit, the sum of all.

    With GRADIENT then the gradient of this loss, without z-loss, over the logits: their second read meets the cache.
    """
    LN2: tl.constexpr = 0.6931471805599453
    WHOLE_BLOCKS: tl.constexpr = V // BV
    i_r = tl.program_id(0).to(tl.int64)
    logits += i_r * V
    i_target = tl.load(target + i_r)
    row_lse = 0.0
    row_target = 0.0
    row_total = 0.0
    if i_target != ignore_index:
        column = i_target - first
        here = (column >= 0) & (column < V)
        # Read before any warp writes a gradient here: the reductions below wait for all warps.
        row_target = shaped(tl.load(logits + column, mask=here, other=0.0), inner, outer, CAPPED) * LN2
        b_max = tl.full([BL], float("-inf"), dtype=tl.float32)
        b_sum = tl.zeros([BL], dtype=tl.float32)
        b_total = tl.zeros([BL], dtype=tl.float32)
        for i_v in range(0, WHOLE_BLOCKS):
            b_max, b_sum, b_total = add_block(
                b_max, b_sum, b_total, logits, i_v, inner, outer, V, BV, BL, CAPPED, TOTAL, True
            )
        if V % BV != 0:
            b_max, b_sum, b_total = add_block(
                b_max, b_sum, b_total, logits, WHOLE_BLOCKS, inner, outer, V, BV, BL, CAPPED, TOTAL, False
            )
        row_max = tl.max(b_max, 0)
        row_shift = tl.where(row_max == float("-inf"), 0.0, row_max)
        row_lse2 = row_max + tl.log2(tl.sum(b_sum * tl.exp2(b_max - row_shift), 0))
        row_lse = row_lse2 * LN2
        if TOTAL:
            row_total = tl.sum(b_total, 0) * LN2
        if GRADIENT:
            for i_v in range(0, WHOLE_BLOCKS):
                gradient_block(
                    logits, logits, block_offsets(i_v, BV, BL), column, row_lse2, scale, 1.0, peak, smoothed, inner,
                    outer, V, CAPPED, True,
                )  # fmt: skip
            if V % BV != 0:
                gradient_block(
                    logits, logits, block_offsets(WHOLE_BLOCKS, BV, BL), column, row_lse2, scale, 1.0, peak, smoothed,
                    inner, outer, V, CAPPED, False,
                )  # fmt: skip
    elif GRADIENT:
        for i_v in range(0, tl.cdiv(V, BV)):
            o_v = block_offsets(i_v, BV, BL)
            tl.store(logits + o_v, tl.zeros([BV // BL, BL], dtype=logits.dtype.element_ty), mask=o_v < V)
    tl.store(lse + i_r, row_lse)
    tl.store(at_target + i_r, row_target)
    if TOTAL:
        tl.store(total + i_r, row_total)


@triton.jit(do_not_specialize=["first", "ignore_index", "dloss_stride"])
def cross_entropy_bwd_kernel(
    logits,  # [rows, V]
    target,  # [rows]
    lse,  # [rows]
    dloss,  # [rows], or one number with dloss_stride 0
    factor,  # one number
    dlogits,  # [rows, V]
    dloss_stride,
    inner,
    outer,
    first,
    ignore_index,
    scale,
    peak,
    smoothed,
    lse_square_scale,
    V: tl.constexpr,
    BV: tl.constexpr,
    BL: tl.constexpr,
    CAPPED: tl.constexpr,
):
    """One block of one row. ``dlogits`` may be ``logits``: a thread reads its elements before it writes them."""
    LOG2E: tl.constexpr = 1.4426950408889634
    BLOCKS: tl.constexpr = (V + BV - 1) // BV
    i_r = (tl.program_id(0) // BLOCKS).to(tl.int64)
    i_v = tl.program_id(0) % BLOCKS
    o_v = block_offsets(i_v, BV, BL)
    logits += i_r * V
    dlogits += i_r * V
    i_target = tl.load(target + i_r)
    if i_target == ignore_index:
        tl.store(dlogits + o_v, tl.zeros([BV // BL, BL], dtype=dlogits.dtype.element_ty), mask=o_v < V)
    else:
        row_lse = tl.load(lse + i_r)
        row_factor = tl.load(dloss + i_r * dloss_stride) * tl.load(factor) * scale
        z = 1 + 2 * lse_square_scale * row_lse
        shift = row_lse * LOG2E
        column = i_target - first
        if V % BV == 0:
            gradient_block(
                logits, dlogits, o_v, column, shift, row_factor, z, peak, smoothed, inner, outer, V, CAPPED, True
            )
        else:
            gradient_block(
                logits, dlogits, o_v, column, shift, row_factor, z, peak, smoothed, inner, outer, V, CAPPED, False
            )


@triton.jit(do_not_specialize=["rows", "ignore_index"])
def cross_entropy_reduce_kernel(
    target,  # [rows]
    lse,  # [rows]
    at_target,  # [rows]
    total,  # [rows], read only where TOTAL
    loss,  # [rows], or one number where SUM
    z_loss,  # [rows], or one number where SUM
    factor,  # one number
    rows,
    ignore_index,
    smoothing,
    smoothed,
    lse_square_scale,
    BR: tl.constexpr,
    TOTAL: tl.constexpr,
    SUM: tl.constexpr,
    MEAN: tl.constexpr,
):
    """One program for all rows, so that the sum has one order: losses, z-losses, and the factor of all rows."""
    b_loss = tl.zeros([BR], dtype=tl.float32)
    b_z = tl.zeros([BR], dtype=tl.float32)
    b_count = tl.zeros([BR], dtype=tl.int32)
    for i_b in range(0, tl.cdiv(rows, BR)):
        o_r = i_b * BR + tl.arange(0, BR)
        m_r = o_r < rows
        counts = m_r & (tl.load(target + o_r, mask=m_r, other=0) != ignore_index)
        b_lse = tl.load(lse + o_r, mask=counts, other=0.0)
        b_row = b_lse - (1 - smoothing) * tl.load(at_target + o_r, mask=counts, other=0.0)
        if TOTAL:
            b_row -= smoothed * tl.load(total + o_r, mask=counts, other=0.0)
        b_square = lse_square_scale * b_lse * b_lse
        if SUM:
            b_loss += b_row + b_square
            b_z += b_square
            b_count += counts.to(tl.int32)
        else:
            tl.store(loss + o_r, b_row + b_square, mask=m_r)
            tl.store(z_loss + o_r, b_square, mask=m_r)
    weight = 1.0
    if MEAN:
        weight = 1.0 / tl.maximum(tl.sum(b_count, 0), 1).to(tl.float32)
    tl.store(factor, weight)
    if SUM:
        tl.store(loss, tl.sum(b_loss, 0) * weight)
        tl.store(z_loss, tl.sum(b_z, 0) * weight)
