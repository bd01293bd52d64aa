"""Triton kernel of the rotary embedding, over the ``B * T * H`` rows of contiguous ``[B, T, H, D]``.

Letters: BR rows in a block, R channels that turn, BP a block of the channels that pass through; ``b_`` a loaded
block, ``o_`` offsets, ``m_`` a mask.
"""

import triton
import triton.language as tl

from fla.utils.varlen_kernels import locate_steps


@triton.jit
def row_positions(o_token, m_row, cu_seqlens, sequences, offsets, offset, T):
    """The position of each row's step in its own sequence."""
    if cu_seqlens is not None:
        i_n, i_start = locate_steps(o_token, m_row, cu_seqlens, sequences)
        o_p = o_token - i_start + offset
    else:
        i_n = o_token // T
        o_p = o_token % T + offset
    if offsets is not None:
        o_p += tl.load(offsets + i_n, mask=m_row, other=0).to(tl.int64)
    return o_p


@triton.jit
def turn_rows(
    x,
    cos,
    sin,
    y,
    cu_seqlens,
    sequences,
    offsets,
    offset,
    i_b,
    rows,
    length,
    T,
    H: tl.constexpr,
    D: tl.constexpr,
    R: tl.constexpr,
    BR: tl.constexpr,
    BH: tl.constexpr,
    BP: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    CONJUGATE: tl.constexpr,
):
    """Turn block ``i_b`` of the rows of x. Positions outside the tables give NaN, not what lies behind the tables."""
    HALF: tl.constexpr = R // 2
    o_r = i_b.to(tl.int64) * BR + tl.arange(0, BR)[:, None]
    m_row = o_r < rows
    o_p = row_positions(o_r // H, m_row, cu_seqlens, sequences, offsets, offset, T)
    o_c = tl.arange(0, BH)[None, :]
    m_half = m_row & (o_c < HALF)
    m_table = (o_p >= 0) & (o_p < length) & (o_c < HALF)
    b_cos = tl.load(cos + o_p * HALF + o_c, mask=m_table, other=float("nan")).to(tl.float32)
    b_sin = tl.load(sin + o_p * HALF + o_c, mask=m_table, other=float("nan")).to(tl.float32)
    if CONJUGATE:
        b_sin = -b_sin

    if INTERLEAVED:
        o_x = o_r * D + tl.arange(0, 2 * BH)[None, :]
        m_x = m_row & (tl.arange(0, 2 * BH)[None, :] < R)
        b_x = tl.load(x + o_x, mask=m_x, other=0.0).to(tl.float32)
        b_1, b_2 = tl.split(tl.reshape(b_x, [BR, BH, 2]))
        b_y = tl.join(b_1 * b_cos - b_2 * b_sin, b_2 * b_cos + b_1 * b_sin)
        tl.store(y + o_x, tl.reshape(b_y, [BR, 2 * BH]).to(y.dtype.element_ty), mask=m_x)
    else:
        o_x = o_r * D + o_c
        b_1 = tl.load(x + o_x, mask=m_half, other=0.0).to(tl.float32)
        b_2 = tl.load(x + o_x + HALF, mask=m_half, other=0.0).to(tl.float32)
        tl.store(y + o_x, (b_1 * b_cos - b_2 * b_sin).to(y.dtype.element_ty), mask=m_half)
        tl.store(y + o_x + HALF, (b_2 * b_cos + b_1 * b_sin).to(y.dtype.element_ty), mask=m_half)

    if D > R:
        o_rest = R + tl.arange(0, BP)[None, :]
        m_rest = m_row & (o_rest < D)
        tl.store(y + o_r * D + o_rest, tl.load(x + o_r * D + o_rest, mask=m_rest), mask=m_rest)


@triton.jit(do_not_specialize=["sequences", "offset", "tokens", "length", "T"])
def rotary_kernel(
    q,  # [B, T, HQ, D]
    k,  # [B, T, HK, D], or None
    cos_q,  # [length, R / 2]
    sin_q,  # [length, R / 2]
    cos_k,  # [length, R / 2]
    sin_k,  # [length, R / 2]
    y_q,  # [B, T, HQ, D]
    y_k,  # [B, T, HK, D], or None
    cu_seqlens,  # [N + 1], or None
    sequences,  # N
    offsets,  # [N]: added to the positions of each sequence, or None
    offset,
    tokens,  # B * T
    length,
    T,
    HQ: tl.constexpr,
    HK: tl.constexpr,
    D: tl.constexpr,
    R: tl.constexpr,
    BR: tl.constexpr,
    BH: tl.constexpr,
    BP: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    CONJUGATE: tl.constexpr,
):
    """The first programs take q, the others k, which may be absent. BH covers a section of R / 2 channels."""
    i_b, tokens = tl.program_id(0), tokens.to(tl.int64)
    rows = tokens * HQ
    blocks = tl.cdiv(rows, BR)
    if i_b < blocks:
        turn_rows(
            q, cos_q, sin_q, y_q, cu_seqlens, sequences, offsets, offset, i_b, rows, length, T,
            HQ, D, R, BR, BH, BP, INTERLEAVED, CONJUGATE,
        )  # fmt: skip
    elif k is not None:
        turn_rows(
            k, cos_k, sin_k, y_k, cu_seqlens, sequences, offsets, offset, i_b - blocks, tokens * HK, length, T,
            HK, D, R, BR, BH, BP, INTERLEAVED, CONJUGATE,
        )  # fmt: skip
