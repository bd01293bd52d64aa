"""Triton kernels of the softmax over slots, and of its gradient from the weights alone.

Letters: R rows, one for each step and head, M slots, BM all of them in a block; ``b_`` a loaded block, ``o_`` offsets,
``m_`` a mask.
"""

import triton
import triton.language as tl


@triton.jit
def rows(R, M: tl.constexpr, BR: tl.constexpr, BM: tl.constexpr):
    """Offsets of this program's rows, and their mask."""
    o_r = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)
    o_m = tl.arange(0, BM)
    return o_r[:, None] * M + o_m[None, :], (o_r < R)[:, None] & (o_m < M)[None, :]


@triton.jit(do_not_specialize=["R"])
def slots_softmax_fwd_kernel(
    scores,  # [R, M]
    weights,  # [R, M]
    R,
    M: tl.constexpr,
    BR: tl.constexpr,
    BM: tl.constexpr,
):
    """Weights of scores, computed in float32."""
    o, m = rows(R, M, BR, BM)
    # Give masked rows finite scores, so that softmax makes no NaN
    b_scores = tl.load(scores + o, mask=m, other=0.0)
    b_scores = tl.where((tl.arange(0, BM) < M)[None, :], b_scores, float("-inf"))
    b_weights = tl.exp(b_scores - tl.max(b_scores, 1)[:, None])
    b_weights /= tl.sum(b_weights, 1)[:, None]
    tl.store(weights + o, b_weights.to(weights.dtype.element_ty), mask=m)


@triton.jit(do_not_specialize=["R"])
def slots_softmax_bwd_kernel(
    weights,  # [R, M]
    dweights,  # [R, M]
    dscores,  # [R, M]
    R,
    M: tl.constexpr,
    BR: tl.constexpr,
    BM: tl.constexpr,
):
    """``dscores = weights (dweights - sum(weights dweights))``."""
    o, m = rows(R, M, BR, BM)
    b_weights = tl.load(weights + o, mask=m, other=0.0).to(tl.float32)
    b_dweights = tl.load(dweights + o, mask=m, other=0.0).to(tl.float32)
    b_dscores = b_weights * (b_dweights - tl.sum(b_weights * b_dweights, 1)[:, None])
    tl.store(dscores + o, b_dscores.to(dscores.dtype.element_ty), mask=m)
