"""The sum of what the programs of a backward pass leave behind, each for its part.

Shared by the five wheels; not public: it may change in any release.

Letters: P parts and N elements of each, BP and BN of them in a block; ``b_`` a loaded block, ``o_`` offsets, ``i_`` a
loop index.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["P", "N"])
def part_sum_kernel(
    parts,  # [P, N]
    total,  # [N]
    P,
    N,
    BP: tl.constexpr,
    BN: tl.constexpr,
):
    """Sum over the first dimension, always in the same order."""
    o_n = tl.program_id(0).to(tl.int64) * BN + tl.arange(0, BN)[None, :]
    b_sum = tl.zeros([BP, BN], dtype=tl.float32)
    for i_p in range(0, P, BP):
        o_p = i_p + tl.arange(0, BP)[:, None].to(tl.int64)
        b_sum += tl.load(parts + o_p * N + o_n, mask=(o_p < P) & (o_n < N), other=0.0)
    tl.store(total + o_n, tl.sum(b_sum, 0)[None, :].to(total.dtype.element_ty), mask=o_n < N)
