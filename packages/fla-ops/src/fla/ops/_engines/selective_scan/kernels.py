"""Triton kernels of the selective scan; algorithm.py is the same algorithm in PyTorch.

A lane of a warp owns a channel and all its states, and scans the steps of a sequence: a step needs nothing of
another lane but for the gradients of B and C, which are sums over channels. S steps are taken at a time, and those that
are left at the end one by one, so that no step is masked.

Letters as in ``_shared/chunk_kernels.py``; and D channels, G groups of P of them, BD of them in a program, N states of
a channel. States are ``[Q, BD, J]``, Q pieces of J that one load brings. They are loaded as ``[Q * BD, J]``: from that
shape every Triton gives the lanes channels to hold, and the registers pieces. ``WORDS``: the dtype of B and C where one
word of 32 bits holds two of their elements, else None. A row of B or C has R words, or elements.
"""

import triton
import triton.language as tl

from fla.ops._shared.chunk_kernels import LOG2E, decay_of

#: Lanes of a warp, which exchange numbers without a barrier.
WARP = tl.constexpr(32)


@triton.jit
def softplus(x):
    """``log(1 + e^x)``, within two units in the last place: a polynomial is cheaper than a logarithm and a quotient."""
    e = tl.exp2(-tl.abs(x) * LOG2E)
    p = e * -0.00324402284 + 0.0198514443
    p = p * e - 0.0569594838
    p = p * e + 0.106036477
    p = p * e - 0.153055876
    p = p * e + 0.196759373
    p = p * e - 0.249541327
    p = p * e + 0.333299637
    p = p * e - 0.499999017
    return tl.maximum(x, 0.0) + (p * e * e + e)


@triton.jit
def step_size(b_raw, b_bias, SOFTPLUS: tl.constexpr):
    """The step sizes that delta stands for."""
    return softplus(b_raw + b_bias) if SOFTPLUS else b_raw + b_bias


@triton.jit
def load_states(p, m, BD: tl.constexpr):
    """``[Q * BD, J]`` from memory as ``[Q, BD, J]``, in float32."""
    return unpack(tl.load(p) if m is None else tl.load(p, mask=m, other=0.0), BD)


@triton.jit
def fetch_shared(p, stride, m, S: tl.constexpr):
    """Load B or C, which all channels of a group share, of S steps from p on, in its own dtype."""
    rows = ()
    for s in tl.static_range(S):
        rows = rows + (tl.load(p + s * stride) if m is None else tl.load(p + s * stride, mask=m, other=0.0),)
    return rows


@triton.jit
def unpack(x, BD: tl.constexpr, WORDS: tl.constexpr = None):
    """``[Q * BD, J]``, or words of two of J, as ``[Q, BD, J]``, in float32.

    A word is one register from its load on; elements that a loop carries take one each, and more instructions.
    """
    if WORDS is None:
        y = x.to(tl.float32)
    elif WORDS == "bfloat16":
        y = tl.join((x << 16).to(tl.float32, bitcast=True), (x & -65536).to(tl.float32, bitcast=True))
    else:
        first, second = (x & 65535).to(tl.int16), (x >> 16).to(tl.int16)
        y = tl.join(first.to(tl.float16, bitcast=True), second.to(tl.float16, bitcast=True)).to(tl.float32)
    return tl.reshape(y, [x.shape[0] // BD, BD, y.numel // x.shape[0]])


@triton.jit
def store_states(p, x, m):
    tl.store(p, tl.reshape(x, p.shape), mask=m)


@triton.jit
def save_states(states, x, o, m, i_first, i_t, DN: tl.constexpr, SPAN: tl.constexpr):
    """Store the states before step i_t if a span starts there; ``i_first`` is the sequence's first span.

    A mask decides, not a branch: the loads of the next steps would wait behind a branch.
    """
    store_states(states + (i_first + i_t // SPAN) * DN + o, x, m & (i_t % SPAN == 0))


@triton.jit
def spread(x):
    """Shape ``[BD]`` as ``[1, BD, 1]``, which broadcasts to ``[Q, BD, J]``."""
    return x[None, :, None]


@triton.jit
def over_states(x):
    return tl.sum(tl.sum(x, 0), 1)


@triton.jit
def state_columns(Q: tl.constexpr, J: tl.constexpr, BD: tl.constexpr, MIXED: tl.constexpr):
    """The state at each place of ``[Q * BD, J]``. ``MIXED``: in orders that spare sum_channels selects."""
    o_row = tl.arange(0, Q * BD)
    o_piece = o_row // BD
    if MIXED:
        o_piece = o_piece ^ (o_row % WARP // (WARP // Q))
    return (o_piece * J)[:, None] + tl.arange(0, J)[None, :]


@triton.jit
def locate(cu_seqlens, T, D: tl.constexpr, G: tl.constexpr, BD: tl.constexpr, PACKED: tl.constexpr):
    """This program's sequence, its first step and length, group of channels, and block of that group."""
    P: tl.constexpr = D // G
    blocks = tl.cdiv(P, BD)
    i_b = tl.program_id(0) % blocks
    i_g = tl.program_id(0) // blocks % G
    i_n = tl.program_id(0) // (blocks * G)
    if PACKED:
        begin = tl.load(cu_seqlens + i_n).to(tl.int64)
        length = (tl.load(cu_seqlens + i_n + 1).to(tl.int64) - begin).to(tl.int32)
    else:
        begin = i_n.to(tl.int64) * T
        length = T
    return i_n.to(tl.int64), begin, length, i_g, i_b


@triton.jit
def locate_states(
    i_g,
    i_b,
    D: tl.constexpr,
    G: tl.constexpr,
    N: tl.constexpr,
    Q: tl.constexpr,
    J: tl.constexpr,
    BD: tl.constexpr,
    MIXED: tl.constexpr,
    WORDS: tl.constexpr = None,
):
    """Offsets of channels, of states in a row of B or C, and of both in ``[D, N]``, each with its mask."""
    P: tl.constexpr = D // G
    o_p, o_row = i_b * BD + tl.arange(0, BD), i_b * BD + tl.arange(0, Q * BD) % BD
    o_n = state_columns(Q, J, BD, MIXED)
    m_d, m_n = (o_p < P) | (P % BD == 0), (o_n < N) | (Q * J == N)
    m_dn = ((o_row < P) | (P % BD == 0))[:, None] & m_n
    o_dn = ((i_g * P + o_row) * N)[:, None] + o_n
    if WORDS is not None:
        o_n = state_columns(Q, J // 2, BD, MIXED)
        m_n = (o_n < N // 2) | (Q * J == N)
    return i_g * P + o_p, m_d, o_n, m_n, o_dn, m_dn


@triton.jit
def load_channels(p, o_d, m_d, GIVEN: tl.constexpr):
    """Load one number for each channel, in float32; zero where there is no such operand."""
    return tl.load(p + o_d, mask=m_d, other=0.0).to(tl.float32) if GIVEN else 0.0


@triton.jit
def decay(b_step, b_A, PRECISE: tl.constexpr):
    """The factor by which a step decays the states; ``PRECISE``: to the last bit where it is near 1."""
    if PRECISE:
        b_decay = decay_of(spread(b_step) * b_A)
    else:
        b_decay = tl.exp2(spread(b_step * LOG2E) * b_A)
    return b_decay


@triton.jit
def advance(h, b_decay, b_step, b_u, b_B):
    """The states after a step."""
    return b_decay * h + b_B * spread(b_step * b_u)


@triton.jit
def fetch(pointers, o_t, m_d, D: tl.constexpr, S: tl.constexpr):
    """Load the channels' operands of S steps in their own dtype: converted where they are used, they delay nothing."""
    rows = ()
    for s in tl.static_range(S):
        for i in tl.static_range(len(pointers)):
            rows = rows + (tl.load(pointers[i] + o_t + s * D, mask=m_d, other=0.0),)
    return rows


@triton.jit
def output_steps(
    h,
    b_A,
    rows,
    B_s,
    C_s,
    y,
    b_skip,
    b_bias,
    m_d,
    D: tl.constexpr,
    S: tl.constexpr,
    WORDS: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    HAS_GATE: tl.constexpr,
):
    """Outputs of S steps from the state before them; returns the state after them."""
    BD: tl.constexpr = h.shape[1]
    K: tl.constexpr = 3 if HAS_GATE else 2
    for s in tl.static_range(S):
        b_u = rows[K * s].to(tl.float32)
        b_step = step_size(rows[K * s + 1].to(tl.float32), b_bias, SOFTPLUS)
        h = advance(h, decay(b_step, b_A, rows[0].dtype == tl.float32), b_step, b_u, unpack(B_s[s], BD, WORDS))
        b_y = over_states(h * unpack(C_s[s], BD, WORDS)) + b_skip * b_u
        if HAS_GATE:
            b_z = rows[K * s + 2].to(tl.float32)
            b_y *= b_z * tl.sigmoid(b_z)
        tl.store(y + s * D, b_y.to(y.dtype.element_ty), mask=m_d)
    return h


@triton.jit(do_not_specialize=["T"])
def selective_scan_fwd_kernel(
    u,  # [B, T, D]
    delta,  # [B, T, D]
    A,  # [D, N]
    B,  # [B, T, G, N], or [B, T, G, N / 2] words
    C,  # [B, T, G, N], or [B, T, G, N / 2] words
    skip,  # [D], or None
    z,  # [B, T, D], or None
    bias,  # [D], or None
    y,  # [B, T, D]
    states,  # [spans in all, D, N]: before each span, empty unless SAVE_STATES
    start,  # [sequences, D, N], or None
    end,  # [sequences, D, N]
    cu_seqlens,  # [sequences + 1], or None
    T,
    D: tl.constexpr,
    G: tl.constexpr,
    N: tl.constexpr,
    Q: tl.constexpr,
    J: tl.constexpr,
    BD: tl.constexpr,
    S: tl.constexpr,
    SPAN: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    HAS_SKIP: tl.constexpr,
    HAS_GATE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_START: tl.constexpr,
    SAVE_STATES: tl.constexpr,
    WORDS: tl.constexpr,
    PACKED: tl.constexpr,
):
    """``h = e^(delta A) h + delta u B, y = (h C + D u) silu(z)``, and where asked the state before each span."""
    tl.static_assert(SPAN % S == 0)
    R: tl.constexpr = N if WORDS is None else N // 2
    i_n, begin, length, i_g, i_b = locate(cu_seqlens, T, D, G, BD, PACKED)
    o_d, m_d, o_n, m_n, o_dn, m_dn = locate_states(i_g, i_b, D, G, N, Q, J, BD, False, WORDS)
    b_A = load_states(A + o_dn, m_dn, BD)
    b_skip, b_bias = load_channels(skip, o_d, m_d, HAS_SKIP), load_channels(bias, o_d, m_d, HAS_BIAS)
    h = tl.zeros([Q, BD, J], dtype=tl.float32)
    if HAS_START:
        h += load_states(start + i_n * D * N + o_dn, m_dn, BD)
    whole = length - length % S
    operands = (u, delta, z) if HAS_GATE else (u, delta)
    # Fetch the next tile of S steps while one is taken; the mask keeps all loads off where no tile is whole
    o_g, m_ahead = (begin * G + i_g) * R + o_n, whole > 0
    ahead = fetch(operands, begin * D + o_d, m_d & m_ahead, D, S)
    B_ahead = fetch_shared(B + o_g, G * R, m_n & m_ahead, S)
    C_ahead = fetch_shared(C + o_g, G * R, m_n & m_ahead, S)
    for i_t in range(0, whole, S):
        if SAVE_STATES:
            save_states(states, h, o_dn, m_dn, begin // SPAN + i_n, i_t, D * N, SPAN)
        rows, B_s, C_s = ahead, B_ahead, C_ahead
        t_next = begin + tl.minimum(i_t + S, whole - S)
        ahead = fetch(operands, t_next * D + o_d, m_d, D, S)
        o_g = (t_next * G + i_g) * R + o_n
        B_ahead, C_ahead = fetch_shared(B + o_g, G * R, m_n, S), fetch_shared(C + o_g, G * R, m_n, S)
        p_y = y + (begin + i_t) * D + o_d
        h = output_steps(h, b_A, rows, B_s, C_s, p_y, b_skip, b_bias, m_d, D, S, WORDS, SOFTPLUS, HAS_GATE)
    for i_t in range(whole, length):
        if SAVE_STATES:
            save_states(states, h, o_dn, m_dn, begin // SPAN + i_n, i_t, D * N, SPAN)
        rows = fetch(operands, (begin + i_t) * D + o_d, m_d, D, 1)
        o_g, p_y = ((begin + i_t) * G + i_g) * R + o_n, y + (begin + i_t) * D + o_d
        B_s, C_s = fetch_shared(B + o_g, G * R, m_n, 1), fetch_shared(C + o_g, G * R, m_n, 1)
        h = output_steps(h, b_A, rows, B_s, C_s, p_y, b_skip, b_bias, m_d, D, 1, WORDS, SOFTPLUS, HAS_GATE)
    store_states(end + i_n * D * N + o_dn, h, m_dn)
