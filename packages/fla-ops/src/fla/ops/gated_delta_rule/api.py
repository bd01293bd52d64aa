"""The public functions of the gated delta rule: what they compute and accept."""

from __future__ import annotations

import torch

from fla.ops._engines.delta.ops import run_chunk_gated_delta_rule
from fla.ops._engines.delta.options import unit, write_strength
from fla.ops._engines.delta_steps.ops import run_recurrent_delta_rule
from fla.ops._shared.arguments import check_heads, sum_dtype
from fla.ops.gated_delta_rule.gate import fused_gdn_gate
from fla.ops.gated_delta_rule.reference import gated_delta_rule_reference
from fla.utils.backends import choose_backend
from fla.utils.validation import resolve_boundaries


def chunk_gated_delta_rule(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor | None,
    beta: torch.Tensor,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
    use_beta_sigmoid_in_kernel: bool = False,
    allow_neg_eigval: bool = False,
    state_v_first: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    cu_seqlens_cpu: torch.Tensor | None = None,
    use_gate_in_kernel: bool = False,
    A_log: torch.Tensor | None = None,
    dt_bias: torch.Tensor | None = None,
    backend: str | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""The gated delta rule over whole sequences, chunk by chunk (arXiv 2412.06464).

    .. math::
        S_t = e^{g_t} (I - \beta_t k_t k_t^\top)\, S_{t-1} + \beta_t k_t v_t^\top, \qquad o_t = scale \cdot S_t^\top q_t

    The state, the decay and every sum are accumulated in float32 (float64 for float64 inputs); exponents are
    always sums of decays, so decays of any strength are safe. Differentiable once in every floating argument.

    Args:
        q: queries ``[B, T, H, K]``; float32, bfloat16, float16, or float64 on the torch backend.
        k: keys ``[B, T, H, K]``; the state stays bounded where ``beta |k|^2`` is at most 2.
        v: values ``[B, T, HV, V]``, HV a multiple of H: value heads ``i * HV / H`` and following share query head i.
        g: log decay of each step ``[B, T, HV]``, natural logarithm, at most 0; any floating dtype. None for none.
        beta: write strength of each step ``[B, T, HV]``, any floating dtype.
        scale: factor on the scores, ``K ** -0.5`` unless given.
        initial_state: state before the first step ``[N, HV, K, V]``; N is B, or the number of packed sequences.
        output_final_state: also return the state after the last step.
        use_qk_l2norm_in_kernel: divide q and k by their norms, in float32.
        use_beta_sigmoid_in_kernel: take the sigmoid of beta.
        allow_neg_eigval: double that sigmoid, so that the state's transition may have eigenvalues down to -1.
        state_v_first: states are ``[N, HV, V, K]``.
        cu_seqlens: boundaries of packed sequences ``[N + 1]``, int32 or int64, from 0 to T; B must be 1.
        cu_seqlens_cpu: the same on the CPU. Alone it is used; beside ``cu_seqlens`` it must agree, which is checked on
            the CPU. On a GPU ``cu_seqlens`` decides; there only ``FLA_DEBUG=1`` compares, which waits for the device.
        use_gate_in_kernel: g is what :func:`fused_gdn_gate` makes the decay of, with ``A_log`` and ``dt_bias``.
        A_log: logarithm of the decay's rate ``[HV]``.
        dt_bias: the gate's bias ``[HV]``; none unless given.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.
        cu_seq_lens_q: a second spelling of ``cu_seqlens``, which transformers' models use; where both are given they
            must agree, which is checked as for ``cu_seqlens_cpu``.

    Returns:
        ``(o, final_state)``: o ``[B, T, HV, V]`` in the dtype of v; the state in float32, None unless asked for.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: an argument of the wrong shape, on another device, a gate without its parameters or with some it
            does not use, or a backend that cannot run here.

    Example:
        >>> q, k, v = (F.normalize(x, dim=-1) for x in torch.randn(3, 1, 64, 2, 32))
        >>> beta = torch.rand(1, 64, 2)
        >>> g = F.logsigmoid(torch.randn(1, 64, 2))
        >>> o, state = chunk_gated_delta_rule(q, k, v, g=g, beta=beta, output_final_state=True)
        >>> o.shape, state.shape
        (torch.Size([1, 64, 2, 32]), torch.Size([1, 2, 32, 32]))
    """
    cu_seqlens = resolve_boundaries(q, cu_seqlens, cu_seqlens_cpu, cu_seq_lens_q)
    gates = {"g": (g, "B T HV?"), "beta": (beta, "B T HV")}
    scale = check_heads(
        q,
        k,
        v,
        gates,
        scale,
        initial_state,
        cu_seqlens,
        state_v_first=state_v_first,
        grouped=True,
    )
    chosen = choose_backend(q, backend)
    beta = write_strength(beta, use_beta_sigmoid_in_kernel, allow_neg_eigval)
    g = _log_decay(v, g, use_gate_in_kernel, A_log, dt_bias)
    if use_qk_l2norm_in_kernel:
        q, k = unit(q), unit(k)
    if chosen == "reference":
        return gated_delta_rule_reference(
            q,
            k,
            v,
            g=g,
            beta=beta,
            scale=scale,
            initial_state=initial_state,
            output_final_state=output_final_state,
            state_v_first=state_v_first,
            cu_seqlens=cu_seqlens,
        )
    return run_chunk_gated_delta_rule(
        q, k, v, beta, g, None, initial_state, cu_seqlens, scale, output_final_state, state_v_first, chosen
    )


#: A short name of the same function.
chunk_gdn = chunk_gated_delta_rule


def fused_recurrent_gated_delta_rule(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor | None = None,
    gk: torch.Tensor | None = None,
    gv: torch.Tensor | None = None,
    beta: torch.Tensor | None = None,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
    use_gate_in_kernel: bool = False,
    A_log: torch.Tensor | None = None,
    dt_bias: torch.Tensor | None = None,
    use_beta_sigmoid_in_kernel: bool = False,
    allow_neg_eigval: bool = False,
    state_v_first: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    backend: str | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""The gated delta rule one step after the other: for decoding and short sequences (arXiv 2412.06464).

    .. math::
        S'_t = e^{g_t + gk_t} (e^{gv_t})^\top \odot S_{t-1}, \qquad
        S_t = S'_t + k_t \left(\beta_t \odot (v_t - S'^\top_t k_t)\right)^\top, \qquad o_t = scale \cdot S_t^\top q_t

    Arguments, precision, results and errors are those of :func:`chunk_gated_delta_rule`, and in addition:

    Args:
        q: queries ``[B, T, H, K]``.
        k: keys ``[B, T, H, K]``.
        v: values ``[B, T, HV, V]``.
        g: log decay of each step ``[B, T, HV]``; none unless given.
        gk: log decay per key channel ``[B, T, HV, K]``; none unless given.
        gv: log decay per value channel ``[B, T, HV, V]``; none unless given.
        beta: write strength of each step ``[B, T, HV]``, or of each value channel ``[B, T, HV, V]``; 1 unless given.
        scale: factor on the scores, ``K ** -0.5`` unless given.
        initial_state: ``[N, HV, K, V]``.
        output_final_state: also return the last state.
        use_qk_l2norm_in_kernel: divide q and k by their norms.
        use_gate_in_kernel: g is what :func:`fused_gdn_gate` makes the decay of.
        A_log: logarithm of the decay's rate ``[HV]``.
        dt_bias: the gate's bias ``[HV]``.
        use_beta_sigmoid_in_kernel: take the sigmoid of beta.
        allow_neg_eigval: double that sigmoid.
        state_v_first: states are ``[N, HV, V, K]``.
        cu_seqlens: boundaries of packed sequences ``[N + 1]``; B must be 1.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.
        cu_seq_lens_q: a second spelling of ``cu_seqlens``; see :func:`chunk_gated_delta_rule`.

    Returns:
        ``(o, final_state)``: o ``[B, T, HV, V]`` in the dtype of v; the state in float32, None unless asked for.

    Example:
        >>> q, k, v = (F.normalize(x, dim=-1) for x in torch.randn(3, 1, 64, 2, 32))
        >>> beta = torch.rand(1, 64, 2)
        >>> g = F.logsigmoid(torch.randn(1, 64, 2))
        >>> o, state = fused_recurrent_gated_delta_rule(q, k, v, g=g, beta=beta, output_final_state=True)
        >>> o.shape, state.shape
        (torch.Size([1, 64, 2, 32]), torch.Size([1, 2, 32, 32]))
    """
    cu_seqlens = resolve_boundaries(q, cu_seqlens, cu_seq_lens_q=cu_seq_lens_q)
    per_channel = beta is not None and beta.dim() == 4
    others = {
        "g": (g, "B T HV?"),
        "gk": (gk, "B T HV K?"),
        "gv": (gv, "B T HV V?"),
        "beta": (beta, "B T HV V" if per_channel else "B T HV?"),
    }
    scale = check_heads(q, k, v, others, scale, initial_state, cu_seqlens, state_v_first=state_v_first, grouped=True)
    chosen = choose_backend(q, backend)
    if beta is not None:
        beta = write_strength(beta, use_beta_sigmoid_in_kernel, allow_neg_eigval)
    elif use_beta_sigmoid_in_kernel or allow_neg_eigval:
        raise ValueError("beta: expected a tensor to take the sigmoid of, got None")
    g = _log_decay(v, g, use_gate_in_kernel, A_log, dt_bias)
    if use_qk_l2norm_in_kernel:
        q, k = unit(q), unit(k)
    if chosen == "reference":
        return gated_delta_rule_reference(
            q,
            k,
            v,
            g=g,
            gk=gk,
            gv=gv,
            beta=beta,
            scale=scale,
            initial_state=initial_state,
            output_final_state=output_final_state,
            state_v_first=state_v_first,
            cu_seqlens=cu_seqlens,
        )
    return run_recurrent_delta_rule(
        q,
        k,
        v,
        beta,
        initial_state,
        cu_seqlens,
        scale,
        output_final_state,
        state_v_first,
        chosen,
        g=g,
        gk=gk,
        gv=gv,
    )


#: A short name of the same function.
fused_recurrent_gdn = fused_recurrent_gated_delta_rule


def _log_decay(
    v: torch.Tensor,
    g: torch.Tensor | None,
    use_gate_in_kernel: bool,
    A_log: torch.Tensor | None,
    dt_bias: torch.Tensor | None,
) -> torch.Tensor | None:
    if not use_gate_in_kernel:
        if A_log is not None or dt_bias is not None:
            raise ValueError("A_log, dt_bias: used with use_gate_in_kernel=True only")
        return g
    if g is None or A_log is None:
        raise ValueError("use_gate_in_kernel: expected g and A_log to make the decay of, got None")
    return fused_gdn_gate(g, A_log, dt_bias, sum_dtype(v))
