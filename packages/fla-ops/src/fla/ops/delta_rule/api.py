"""The public functions of the delta rule: what they compute and accept."""

from __future__ import annotations

import torch

from fla.ops._engines.delta.ops import run_chunk_gated_delta_rule
from fla.ops._engines.delta.options import unit
from fla.ops._engines.delta_steps.ops import run_recurrent_delta_rule
from fla.ops._shared.arguments import check_heads, sum_dtype
from fla.ops.delta_rule.reference import delta_rule_reference
from fla.utils.backends import choose_backend
from fla.utils.validation import resolve_boundaries


def chunk_delta_rule(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    beta: torch.Tensor,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    cu_seqlens_cpu: torch.Tensor | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""The delta rule over whole sequences, chunk by chunk (arXiv 2406.06484).

    .. math::
        S_t = (I - \beta_t k_t k_t^\top)\, S_{t-1} + \beta_t k_t v_t^\top, \qquad o_t = scale \cdot S_t^\top q_t

    The state and every sum are accumulated in float32 (float64 for float64 inputs). Differentiable once in every
    floating argument.

    Args:
        q: queries ``[B, T, H, K]``; float32, bfloat16, float16, or float64 on the torch backend.
        k: keys ``[B, T, H, K]``; the state stays bounded where ``beta |k|^2`` is at most 2.
        v: values ``[B, T, HV, V]``, HV a multiple of H: value heads ``i * HV / H`` and following share query head i.
        beta: write strength of each step ``[B, T, HV]``, any floating dtype.
        scale: factor on the scores, ``K ** -0.5`` unless given.
        initial_state: state before the first step ``[N, HV, K, V]``; N is B, or the number of packed sequences.
        output_final_state: also return the state after the last step.
        use_qk_l2norm_in_kernel: divide q and k by their norms, in float32.
        cu_seqlens: boundaries of packed sequences ``[N + 1]``, int32 or int64, from 0 to T; B must be 1.
        cu_seqlens_cpu: the same on the CPU. Alone it is used; beside ``cu_seqlens`` it must agree, which is checked on
            the CPU. On a GPU ``cu_seqlens`` decides; there only ``FLA_DEBUG=1`` compares, which waits for the device.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        ``(o, final_state)``: o ``[B, T, HV, V]`` in the dtype of v; the state in float32, None unless asked for.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: an argument of the wrong shape, on another device, or a backend that cannot run here.

    Example:
        >>> q, k, v = (F.normalize(x, dim=-1) for x in torch.randn(3, 1, 64, 2, 32))
        >>> beta = torch.rand(1, 64, 2)
        >>> o, state = chunk_delta_rule(q, k, v, beta, output_final_state=True)
        >>> o.shape, state.shape
        (torch.Size([1, 64, 2, 32]), torch.Size([1, 2, 32, 32]))
    """
    cu_seqlens = resolve_boundaries(q, cu_seqlens, cu_seqlens_cpu)
    others = {"beta": (beta, "B T HV")}
    scale = check_heads(q, k, v, others, scale, initial_state, cu_seqlens, grouped=True)
    chosen = choose_backend(q, backend)
    if use_qk_l2norm_in_kernel:
        q, k = unit(q), unit(k)
    if chosen == "reference":
        return delta_rule_reference(
            q,
            k,
            v,
            beta=beta,
            scale=scale,
            initial_state=initial_state,
            output_final_state=output_final_state,
            cu_seqlens=cu_seqlens,
        )
    return run_chunk_gated_delta_rule(
        q, k, v, beta, None, None, initial_state, cu_seqlens, scale, output_final_state, False, chosen
    )


#: Another name of the same function: the chunk form is the fused one.
fused_chunk_delta_rule = chunk_delta_rule


def fused_recurrent_delta_rule(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    beta: torch.Tensor | None = None,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""The delta rule one step after the other: for decoding and short sequences (arXiv 2406.06484).

    .. math::
        S_t = S_{t-1} + k_t \left(\beta_t \odot (v_t - S_{t-1}^\top k_t)\right)^\top, \qquad
        o_t = scale \cdot S_t^\top q_t

    Arguments, precision, results and errors are those of :func:`chunk_delta_rule`, and in addition:

    Args:
        q: queries ``[B, T, H, K]``.
        k: keys ``[B, T, H, K]``.
        v: values ``[B, T, HV, V]``.
        beta: write strength of each step ``[B, T, HV]``, or of each value channel ``[B, T, HV, V]``; 1 unless given.
        scale: factor on the scores, ``K ** -0.5`` unless given.
        initial_state: ``[N, HV, K, V]``.
        output_final_state: also return the last state.
        use_qk_l2norm_in_kernel: divide q and k by their norms.
        cu_seqlens: boundaries of packed sequences ``[N + 1]``; B must be 1.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        ``(o, final_state)``: o ``[B, T, HV, V]`` in the dtype of v; the state in float32, None unless asked for.

    Example:
        >>> q, k, v = (F.normalize(x, dim=-1) for x in torch.randn(3, 1, 64, 2, 32))
        >>> beta = torch.rand(1, 64, 2)
        >>> o, state = fused_recurrent_delta_rule(q, k, v, beta, output_final_state=True)
        >>> o.shape, state.shape
        (torch.Size([1, 64, 2, 32]), torch.Size([1, 2, 32, 32]))
    """
    per_channel = isinstance(beta, torch.Tensor) and beta.dim() == 4
    others = {"beta": (beta, "B T HV V" if per_channel else "B T HV?")}
    scale = check_heads(q, k, v, others, scale, initial_state, cu_seqlens, grouped=True)
    chosen = choose_backend(q, backend)
    if use_qk_l2norm_in_kernel:
        q, k = unit(q), unit(k)
    if chosen == "reference":
        return delta_rule_reference(
            q,
            k,
            v,
            beta=beta,
            scale=scale,
            initial_state=initial_state,
            output_final_state=output_final_state,
            cu_seqlens=cu_seqlens,
        )
    return run_recurrent_delta_rule(q, k, v, beta, initial_state, cu_seqlens, scale, output_final_state, False, chosen)


def parallel_delta_rule(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    beta: torch.Tensor,
    scale: float | None = None,
    output_attentions: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""The delta rule, and on request its attention matrix (arXiv 2406.06484).

    .. math::
        attn = scale \cdot \mathrm{tril}(Q K^\top)
        \left(I + \mathrm{tril}(\mathrm{diag}(\beta) K K^\top, -1)\right)^{-1} \mathrm{diag}(\beta), \qquad o = attn\, v

    The output is that of :func:`chunk_delta_rule`, whose arguments and errors these are; only the matrix costs time
    and memory that are quadratic in T (cubic time for its inverse).

    Args:
        q: queries ``[B, T, H, K]``.
        k: keys ``[B, T, H, K]``.
        v: values ``[B, T, HV, V]``.
        beta: write strength of each step ``[B, T, HV]``.
        scale: factor on the scores, ``K ** -0.5`` unless given.
        output_attentions: also return the matrix.
        cu_seqlens: boundaries of packed sequences ``[N + 1]``; B must be 1.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        ``(o, attn)``: attn ``[B, HV, T, T]`` in float32 (float64 for float64 inputs), None unless asked for.

    Raises:
        ValueError: the matrix of packed sequences is asked for.

    Example:
        >>> q, k, v = (F.normalize(x, dim=-1) for x in torch.randn(3, 1, 64, 2, 32))
        >>> beta = torch.rand(1, 64, 2)
        >>> o, attention = parallel_delta_rule(q, k, v, beta, output_attentions=True)
        >>> attention.shape
        torch.Size([1, 2, 64, 64])
    """
    if output_attentions and cu_seqlens is not None:
        raise ValueError("output_attentions: there is no one matrix of packed sequences; expected cu_seqlens=None")
    o, _ = chunk_delta_rule(q, k, v, beta, scale, cu_seqlens=cu_seqlens, backend=backend)
    return o, _attention_matrix(q, k, beta, scale) if output_attentions else None


def _attention_matrix(q: torch.Tensor, k: torch.Tensor, beta: torch.Tensor, scale: float | None) -> torch.Tensor:
    groups = beta.shape[2] // q.shape[2]
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    q_, k_ = (x.to(sum_dtype(q)).repeat_interleave(groups, 2).transpose(1, 2) for x in (q, k))
    beta_ = beta.to(q_.dtype).transpose(1, 2)
    scores = ((q_ * scale) @ k_.transpose(-1, -2)).tril()
    # Only what is below the diagonal is looked at: the diagonal of the unit triangular matrix is taken as one.
    corrections = (beta_.unsqueeze(-1) * k_) @ k_.transpose(-1, -2)
    solved: torch.Tensor = torch.linalg.solve_triangular(
        corrections, scores, upper=False, left=False, unitriangular=True
    )
    return solved * beta_.unsqueeze(-2)
