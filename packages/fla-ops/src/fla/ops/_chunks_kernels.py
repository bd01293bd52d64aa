"""What the chunk kernels of every family share: where a chunk lies, and sums of log decays over spans of steps.

Letters: B batch, T time, H heads, K and V head dims, C chunk, N sequences; ``b_`` a loaded block, ``p_`` pointers,
``o_`` offsets, ``m_`` a mask, ``i_`` a program or loop index.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
#: Decays below this are as good as a reset; a product of 0 and -inf in a span sum would be NaN.
LOWEST_DECAY = tl.constexpr(-1.0e4)


@triton.jit
def span_sums(spans, b, DTYPE: tl.constexpr, PRECISION: tl.constexpr):
    """``spans @ b`` for a 0/1 matrix, exact up to the rounding of the sums.

    A float32 operand is split in two narrow ones where the kernel computes in half precision.
    """
    if b.dtype == tl.float32 and DTYPE != tl.float32:
        hi = b.to(DTYPE)
        lo = (b - hi.to(tl.float32)).to(DTYPE)
        sums = tl.dot(spans.to(DTYPE), hi) + tl.dot(spans.to(DTYPE), lo)
    else:
        sums = tl.dot(spans.to(b.dtype), b, input_precision=PRECISION)
    return sums


@triton.jit
def span_sums_transposed(b, spans, DTYPE: tl.constexpr, PRECISION: tl.constexpr):
    """``b @ spans`` for a 0/1 matrix, as :func:`span_sums`."""
    if b.dtype == tl.float32 and DTYPE != tl.float32:
        hi = b.to(DTYPE)
        lo = (b - hi.to(tl.float32)).to(DTYPE)
        sums = tl.dot(hi, spans.to(DTYPE)) + tl.dot(lo, spans.to(DTYPE))
    else:
        sums = tl.dot(b, spans.to(b.dtype), input_precision=PRECISION)
    return sums


@triton.jit
def load_decay(pointers, mask):
    """Log decays, 0 outside the mask."""
    decay = tl.load(pointers, mask=mask, other=0.0)
    return tl.maximum(decay, LOWEST_DECAY, propagate_nan=tl.PropagateNan.ALL).to(decay.dtype)


@triton.jit
def locate_chunk(i_c, cu_seqlens, sequence, first_chunk, T, C: tl.constexpr, PACKED: tl.constexpr):
    """The first step of chunk ``i_c`` among all steps and the number of steps from there to its sequence's end."""
    if PACKED:
        i_n = tl.load(sequence + i_c)
        if i_n < 0:
            first = tl.zeros([], dtype=tl.int64)
            left = tl.zeros([], dtype=tl.int64)
        else:
            begin = tl.load(cu_seqlens + i_n).to(tl.int64)
            end = tl.load(cu_seqlens + i_n + 1).to(tl.int64)
            offset = (i_c - tl.load(first_chunk + i_n)).to(tl.int64) * C
            first = begin + offset
            left = end - first
    else:
        chunks = tl.cdiv(T, C)
        offset = (i_c % chunks).to(tl.int64) * C
        first = (i_c // chunks).to(tl.int64) * T + offset
        left = T - offset
    return first, left


@triton.jit
def locate_sequence(i_n, cu_seqlens, first_chunk, T, C: tl.constexpr, PACKED: tl.constexpr):
    """The first step of sequence ``i_n`` among all steps, its length, and the index of its first chunk."""
    if PACKED:
        begin = tl.load(cu_seqlens + i_n).to(tl.int64)
        length = (tl.load(cu_seqlens + i_n + 1).to(tl.int64) - begin).to(tl.int32)
        i_first = tl.load(first_chunk + i_n).to(tl.int64)
    else:
        begin = i_n.to(tl.int64) * T
        length = T
        i_first = i_n.to(tl.int64) * tl.cdiv(T, C)
    return begin, length, i_first
