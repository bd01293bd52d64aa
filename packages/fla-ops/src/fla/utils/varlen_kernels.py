"""The sequence that a step or a chunk of packed sequences belongs to, found on the device.

Shared by the five wheels; not public: it may change in any release.

Letters: N sequences, C steps in a chunk, BN sequences and BC chunks in a block; ``b_`` a loaded block, ``o_`` offsets,
``m_`` a mask, ``i_`` a program or loop index.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["sequences", "chunks"])
def chunk_table_kernel(
    cu_seqlens,  # [N + 1]
    sequence,  # [chunks]
    first_chunk,  # [N + 1]
    sequences,  # N
    chunks,
    C: tl.constexpr,
    BN: tl.constexpr,
    BC: tl.constexpr,
):
    """A block of rows of ``sequence [chunks]``, and those entries of ``first_chunk [N + 1]`` that lie in the block.

    Each program walks over the sequences until its own chunks are covered, so that one launch is enough. No entry
    of ``first_chunk`` is over ``chunks``, whatever the boundaries are.
    """
    i_c = tl.program_id(0).to(tl.int64) * BC
    o_c = i_c + tl.arange(0, BC)
    if i_c == 0:
        tl.store(first_chunk, 0)
    b_sequence = tl.zeros([BC], tl.int32)
    before = tl.sum(b_sequence)  # chunks of the sequences before the block
    i_n = 0
    while (i_n < sequences) & (before < i_c + BC):
        o_n = i_n + tl.arange(0, BN)
        m_n = o_n < sequences
        b_start = tl.load(cu_seqlens + o_n, mask=m_n, other=0)
        b_end = tl.load(cu_seqlens + o_n + 1, mask=m_n, other=0)
        b_count = tl.maximum((b_end - b_start + (C - 1)) // C, 0).to(tl.int32)
        total = before + tl.sum(b_count)
        if total <= i_c:
            # All chunks of this block of sequences come before the program's: for most programs, most blocks do
            b_sequence += BN
            # An end at the very first chunk of the program is this program's to write.
            if total == i_c:
                b_last = before + tl.cumsum(b_count, 0)
                tl.store(first_chunk + 1 + o_n, b_last, mask=m_n & (b_last == i_c))
        else:
            b_last = tl.minimum(before + tl.cumsum(b_count, 0), chunks)
            tl.store(first_chunk + 1 + o_n, b_last, mask=m_n & (b_last >= i_c) & (b_last < i_c + BC))
            passed = m_n[None, :] & (b_last[None, :] <= o_c[:, None])
            b_sequence += tl.sum(passed.to(tl.int32), 1)
        before = total
        i_n += BN
    tl.store(sequence + o_c, tl.where(o_c < before, b_sequence, -1), mask=o_c < chunks)


@triton.jit
def locate_steps(o_t, m_t, cu_seqlens, sequences):
    """For each step the sequence that it belongs to and where that starts: the last boundary that is no later."""
    i_low = o_t * 0
    i_high = i_low + sequences
    size = sequences
    while size > 1:
        i_middle = (i_low + i_high) // 2
        m_late = tl.load(cu_seqlens + i_middle, mask=m_t, other=0) <= o_t
        i_low = tl.where(m_late, i_middle, i_low)
        i_high = tl.where(m_late, i_high, i_middle)
        size = (size + 1) // 2
    return i_low, tl.load(cu_seqlens + i_low, mask=m_t, other=0).to(tl.int64)
