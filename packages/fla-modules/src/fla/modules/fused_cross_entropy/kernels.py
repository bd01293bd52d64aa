"""Triton kernels of the cross entropy. Letters: V classes, BV of them in a block; ``b_`` a loaded block."""

import triton
import triton.language as tl


@triton.jit
def shaped_logits(logits, o_v, V, scale, cap, CAPPED: tl.constexpr):
    """A block of a row after scale and soft cap; minus infinity past the end."""
    b_x = tl.load(logits + o_v, mask=o_v < V, other=0.0).to(tl.float32) * scale
    if CAPPED:
        b_x = cap * (2 * tl.sigmoid(2 * b_x / cap) - 1)
    return tl.where(o_v < V, b_x, float("-inf"))


@triton.jit(do_not_specialize=["stride", "first", "ignore_index"])
def statistics_kernel(
    logits,
    target,
    lse,
    at_target,
    total,
    stride,
    scale,
    cap,
    first,
    ignore_index,
    V: tl.constexpr,
    BV: tl.constexpr,
    CAPPED: tl.constexpr,
):
    """One row: log-sum-exp in one pass, the target's logit, the sum of all."""
    i_r = tl.program_id(0).to(tl.int64)
    logits += i_r * stride
    b_max = tl.full([BV], float("-inf"), dtype=tl.float32)
    b_sum = tl.zeros([BV], dtype=tl.float32)
    b_total = tl.zeros([BV], dtype=tl.float32)
    for i_v in range(0, tl.cdiv(V, BV)):
        o_v = i_v * BV + tl.arange(0, BV)
        b_x = shaped_logits(logits, o_v, V, scale, cap, CAPPED)
        b_new = tl.maximum(b_max, b_x)
        # A lane that has met no logit yet would subtract infinity from infinity.
        b_sum = tl.where(b_new == float("-inf"), 0.0, b_sum * tl.exp(b_max - b_new) + tl.exp(b_x - b_new))
        b_max = b_new
        b_total += tl.where(o_v < V, b_x, 0.0)
    row_max = tl.max(b_max, 0)
    row_sum = tl.sum(tl.where(b_max == float("-inf"), 0.0, b_sum * tl.exp(b_max - row_max)), 0)
    tl.store(lse + i_r, row_max + tl.log(row_sum))
    tl.store(total + i_r, tl.sum(b_total, 0))
    i_target = tl.load(target + i_r)
    column = i_target - first
    here = (column >= 0) & (column < V) & (i_target != ignore_index)
    b_x = tl.load(logits + column, mask=here, other=0.0).to(tl.float32) * scale
    if CAPPED:
        b_x = cap * (2 * tl.sigmoid(2 * b_x / cap) - 1)
    tl.store(at_target + i_r, b_x)


@triton.jit(do_not_specialize=["stride", "first", "ignore_index"])
def gradient_kernel(
    logits,
    target,
    lse,
    dloss,
    dlogits,
    stride,
    scale,
    cap,
    first,
    ignore_index,
    smoothing,
    classes,
    lse_square_scale,
    V: tl.constexpr,
    BV: tl.constexpr,
    CAPPED: tl.constexpr,
):
    """One block of one row. ``dlogits`` may be ``logits``: each element is read before it is written, by its thread."""
    i_r = tl.program_id(0).to(tl.int64)
    o_v = tl.program_id(1) * BV + tl.arange(0, BV)
    i_target = tl.load(target + i_r)
    b_dloss = tl.load(dloss + i_r).to(tl.float32) * scale
    b_dloss = tl.where(i_target == ignore_index, 0.0, b_dloss)
    b_lse = tl.load(lse + i_r)
    b_x = shaped_logits(logits + i_r * stride, o_v, V, scale, cap, CAPPED)
    b_dx = tl.exp(b_x - b_lse) * (1 + 2 * lse_square_scale * b_lse) - smoothing / classes
    b_dx -= tl.where(o_v == i_target - first, 1 - smoothing, 0.0)
    if CAPPED:
        b_dx *= 1 - (b_x / cap) * (b_x / cap)
    tl.store(dlogits + i_r * stride + o_v, (b_dx * b_dloss).to(dlogits.dtype.element_ty), mask=o_v < V)
