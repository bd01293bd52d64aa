"""Triton kernels of the gated linear units, elementwise over rows of D channels.

Letters: BR rows and BD channels in a block; ``b_`` a loaded block, ``o_`` offsets, ``i_`` a program index.
"""

import triton
import triton.language as tl


@triton.jit
def gate_value(b_x, power, GATE: tl.constexpr):
    """The factor of y, and its derivative."""
    b_s = tl.sigmoid(b_x)
    if GATE == "sigmoid":
        b_a = b_s
        b_da = b_s * (1 - b_s)
    elif GATE == "swish":
        b_a = b_x * b_s
        b_da = b_s + b_a * (1 - b_s)
    else:
        positive = b_x > 0
        b_base = tl.where(positive, b_x, 1.0)
        b_root = tl.sqrt(b_base)
        b_log = tl.log(b_base)
        b_exponent = power / (b_root + 1)
        # x ** (exponent - 1): finite where x is too small for exponent / x.
        b_slope = tl.exp((b_exponent - 1) * b_log)
        b_f = tl.where(positive, b_slope * b_base, b_x)
        b_bend = b_exponent - b_log * power * b_root / (2 * (b_root + 1) * (b_root + 1))
        b_a = b_s * b_f
        b_da = b_a * (1 - b_s) + b_s * tl.where(positive, b_slope * b_bend, 1.0)
    return b_a, b_da


@triton.jit
def block_offsets(rows, D: tl.constexpr, BD: tl.constexpr, BR: tl.constexpr):
    """Rows ``[BR, 1]`` and channels ``[1, BD]`` of this program's block, and which of its elements exist."""
    blocks: tl.constexpr = (D + BD - 1) // BD
    i_p = tl.program_id(0)
    o_d = (i_p % blocks) * BD + tl.arange(0, BD)[None, :]
    o_r = (i_p // blocks).to(tl.int64) * BR + tl.arange(0, BR)[:, None]
    return o_r, o_d, (o_r < rows) & (o_d < D)


@triton.jit(do_not_specialize=["rows"])
def glu_fwd_kernel(
    x,  # [rows, D], rows stride_x apart
    y,  # [rows, D], rows stride_y apart
    z,  # [rows, D]
    stride_x,
    stride_y,
    power,
    rows,
    D: tl.constexpr,
    BD: tl.constexpr,
    BR: tl.constexpr,
    GATE: tl.constexpr,
):
    o_r, o_d, mask = block_offsets(rows, D, BD, BR)
    b_x = tl.load(x + o_r * stride_x + o_d, mask=mask, other=0.0).to(tl.float32)
    b_y = tl.load(y + o_r * stride_y + o_d, mask=mask, other=0.0).to(tl.float32)
    b_a, _ = gate_value(b_x, power, GATE)
    tl.store(z + o_r * D + o_d, (b_a * b_y).to(z.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["rows"])
def glu_bwd_kernel(
    x,  # [rows, D], rows stride_x apart
    y,  # [rows, D], rows stride_y apart
    dz,  # [rows, D]
    dx,  # [rows, D]
    dy,  # [rows, D]
    z,  # [rows, D], or None
    stride_x,
    stride_y,
    power,
    rows,
    D: tl.constexpr,
    BD: tl.constexpr,
    BR: tl.constexpr,
    GATE: tl.constexpr,
):
    """Gradients of x and y, and z again where it has a place to go."""
    o_r, o_d, mask = block_offsets(rows, D, BD, BR)
    o_z = o_r * D + o_d
    b_x = tl.load(x + o_r * stride_x + o_d, mask=mask, other=0.0).to(tl.float32)
    b_y = tl.load(y + o_r * stride_y + o_d, mask=mask, other=0.0).to(tl.float32)
    b_dz = tl.load(dz + o_z, mask=mask, other=0.0).to(tl.float32)
    b_a, b_da = gate_value(b_x, power, GATE)
    tl.store(dx + o_z, (b_dz * b_y * b_da).to(dx.dtype.element_ty), mask=mask)
    tl.store(dy + o_z, (b_dz * b_a).to(dy.dtype.element_ty), mask=mask)
    if z is not None:
        tl.store(z + o_z, (b_a * b_y).to(z.dtype.element_ty), mask=mask)
