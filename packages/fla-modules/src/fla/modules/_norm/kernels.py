"""Triton kernels of the norms: rows are independent, so a program takes BR of them at a time.

Letters: G groups, which lie side by side in x and in the parameters; D channels of a group, BD channels in a block (all
of a group's), BR rows in a block; ``b_`` a loaded block, ``o_`` offsets, ``m_`` a mask, ``i_`` a program or loop index.
"""

import triton
import triton.language as tl


@triton.jit
def gate_value(b_g, ACTIVATION: tl.constexpr):
    """The activation of the gate and its derivative."""
    b_s = tl.sigmoid(b_g)
    if ACTIVATION == "sigmoid":
        b_a = b_s
        b_da = b_s * (1 - b_s)
    else:
        b_a = b_g * b_s
        b_da = b_s + b_a * (1 - b_s)
    return b_a, b_da


@triton.jit
def standardise(b_x, m_row, m_channel, eps, D: tl.constexpr, KIND: tl.constexpr):
    """Rows before weight and bias, and the factor ``[BR, 1]`` that they were scaled by (0 outside the rows)."""
    if KIND == "layer":
        b_x = tl.where(m_channel, b_x - (tl.sum(b_x, 1) / D)[:, None], 0.0)
    b_square = tl.sum(b_x * b_x, 1)
    if KIND != "l2":
        b_square = b_square / D
    # Rows past the end are all zero: with eps = 0 their factor would be infinite.
    b_scale = tl.where(m_row, tl.rsqrt(b_square + eps)[:, None], 0.0)
    return b_x * b_scale, b_scale


@triton.jit
def quantise_rows(b_y):
    """Rows on 255 steps between plus and minus their largest magnitude."""
    b_scale = (127.0 / tl.maximum(tl.max(tl.abs(b_y), 1), 1e-5))[:, None]
    # 1.5 * 2^23 leaves no fraction bits: what comes back is the nearest integer, ties to even as PyTorch has them.
    return ((b_y * b_scale + 12582912.0) - 12582912.0) / b_scale


@triton.jit(do_not_specialize=["rows"])
def norm_fwd_kernel(
    x,  # [rows, G * D]
    gate,  # [rows, G * D], or None
    weight,  # [G * D], or None
    bias,  # [G * D], or None
    residual,  # [rows, G * D], or None
    y,  # [rows, G * D]
    total,  # [rows, G * D]: x + residual, or None
    eps,
    rows,
    G: tl.constexpr,
    D: tl.constexpr,
    BD: tl.constexpr,
    BR: tl.constexpr,
    KIND: tl.constexpr,
    ACTIVATION: tl.constexpr,
    QUANTISE: tl.constexpr,
):
    i_p = tl.program_id(0)
    i_g = i_p % G
    o_d = tl.arange(0, BD)[None, :]
    o_w = i_g * D + o_d
    o_r = (i_p // G).to(tl.int64) * BR + tl.arange(0, BR)[:, None]
    m_channel = o_d < D
    m_row = o_r < rows
    mask = m_row & m_channel
    o_x = o_r * (G * D) + o_w

    b_x = tl.load(x + o_x, mask=mask, other=0.0).to(tl.float32)
    if residual is not None:
        b_x += tl.load(residual + o_x, mask=mask, other=0.0).to(tl.float32)
    if total is not None:
        tl.store(total + o_x, b_x.to(total.dtype.element_ty), mask=mask)
    b_y, _ = standardise(b_x, m_row, m_channel, eps, D, KIND)
    if weight is not None:
        b_y *= tl.load(weight + o_w, mask=m_channel, other=0.0).to(tl.float32)
    if bias is not None:
        b_y += tl.load(bias + o_w, mask=m_channel, other=0.0).to(tl.float32)
    if gate is not None:
        b_a, _ = gate_value(tl.load(gate + o_x, mask=mask, other=0.0).to(tl.float32), ACTIVATION)
        b_y *= b_a
    if QUANTISE:
        b_y = quantise_rows(b_y)
    tl.store(y + o_x, b_y.to(y.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["rows"])
def norm_bwd_kernel(
    total,  # [rows, G * D]: x + residual
    gate,  # [rows, G * D], or None
    weight,  # [G * D], or None
    bias,  # [G * D], or None
    dy,  # [rows, G * D]
    dtotal,  # [rows, G * D], or None
    dx,  # [rows, G * D]
    dresidual,  # [rows, G * D], or None
    dgate,  # [rows, G * D], or None
    partials,  # [0, 1 or 2, num_programs / G, G * D]: of the weight, then of the bias
    eps,
    rows,
    G: tl.constexpr,
    D: tl.constexpr,
    BD: tl.constexpr,
    BR: tl.constexpr,
    KIND: tl.constexpr,
    ACTIVATION: tl.constexpr,
    STAGES: tl.constexpr,
):
    """A program takes every ``num_programs / G``-th block of rows of its group and sums what they add to the
    parameters' gradients.

    ``partials`` holds ``[num_programs / G, G, D]`` of the weight, then of the bias.
    """
    i_p = tl.program_id(0)
    o_d = tl.arange(0, BD)[None, :]
    o_w = (i_p % G) * D + o_d
    m_channel = o_d < D
    if weight is not None:
        b_dw = tl.zeros([BR, BD], dtype=tl.float32)
    if bias is not None:
        b_db = tl.zeros([BR, BD], dtype=tl.float32)

    for i_r in tl.range(i_p // G, tl.cdiv(rows, BR), tl.num_programs(0) // G, num_stages=STAGES):
        o_r = i_r * BR + tl.arange(0, BR).to(tl.int64)[:, None]
        m_row = o_r < rows
        mask = m_row & m_channel
        o_x = o_r * (G * D) + o_w
        b_x = tl.load(total + o_x, mask=mask, other=0.0).to(tl.float32)
        b_dy = tl.load(dy + o_x, mask=mask, other=0.0).to(tl.float32)
        b_x, b_scale = standardise(b_x, m_row, m_channel, eps, D, KIND)
        # Loaded again for every block: the cache has them, and held in registers they make wide rows spill.
        if weight is not None:
            b_w = tl.load(weight + o_w, mask=m_channel, other=0.0).to(tl.float32)
        if gate is not None:
            b_y = b_x
            if weight is not None:
                b_y *= b_w
            if bias is not None:
                b_y += tl.load(bias + o_w, mask=m_channel, other=0.0).to(tl.float32)
            b_a, b_da = gate_value(tl.load(gate + o_x, mask=mask, other=0.0).to(tl.float32), ACTIVATION)
            tl.store(dgate + o_x, (b_dy * b_y * b_da).to(dgate.dtype.element_ty), mask=mask)
            b_dy *= b_a
        if weight is not None:
            b_dw += b_dy * b_x
        if bias is not None:
            b_db += b_dy
        if weight is not None:
            b_dy *= b_w
        b_along = tl.sum(b_dy * b_x, 1)[:, None]
        if KIND != "l2":
            b_along = b_along / D
        b_dx = b_dy - b_x * b_along
        if KIND == "layer":
            b_dx -= (tl.sum(b_dy, 1) / D)[:, None]
        b_dx *= b_scale
        if dtotal is not None:
            b_dx += tl.load(dtotal + o_x, mask=mask, other=0.0).to(tl.float32)
        tl.store(dx + o_x, b_dx.to(dx.dtype.element_ty), mask=mask)
        if dresidual is not None:
            tl.store(dresidual + o_x, b_dx.to(dresidual.dtype.element_ty), mask=mask)

    p_partials = partials + i_p * D + o_d
    if weight is not None:
        tl.store(p_partials, tl.sum(b_dw, 0)[None, :], mask=m_channel)
        p_partials += tl.num_programs(0) * D
    if bias is not None:
        tl.store(p_partials, tl.sum(b_db, 0)[None, :], mask=m_channel)
