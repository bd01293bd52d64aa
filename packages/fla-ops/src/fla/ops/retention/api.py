"""The public functions of retention: what they compute and accept."""

from __future__ import annotations

import torch

from fla.ops._engines.decay_steps.ops import run_recurrent_gla
from fla.ops._engines.scalar_decay.ops import run_chunk_simple_gla
from fla.ops._engines.scalar_decay.per_head import decay_per_head
from fla.ops._shared.arguments import check_heads
from fla.ops.retention.reference import retention_reference
from fla.ops.simple_gla.api import parallel_simple_gla
from fla.utils.backends import choose_backend


def chunk_retention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    state_v_first: bool = False,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""Retention over whole sequences, chunk by chunk (arXiv 2307.08621).

    .. math:: S_t = \gamma_h\, S_{t-1} + k_t v_t^\top, \qquad o_t = scale \cdot S_t^\top q_t, \qquad
        \gamma_h = 1 - 2^{-5-h}

    for the heads h = 0, 1, ... of v. The state, the decay and every sum are accumulated in float32 (float64 for
    float64 inputs). Differentiable once in every floating argument.

    Args:
        q: queries ``[B, T, H, K]``; float32, bfloat16, float16, or float64 on the torch backend.
        k: keys ``[B, T, H, K]``.
        v: values ``[B, T, HV, V]``, HV a multiple of H: value heads ``i * HV / H`` and following share query head i.
        scale: factor on the scores, ``K ** -0.5`` unless given.
        initial_state: state before the first step ``[N, HV, K, V]``; N is B, or the number of packed sequences.
        output_final_state: also return the state after the last step.
        cu_seqlens: boundaries of packed sequences ``[N + 1]``, int32 or int64, from 0 to T; B must be 1.
        state_v_first: states are ``[N, HV, V, K]``.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        ``(o, final_state)``: o ``[B, T, HV, V]`` in the dtype of v; the state in float32, None unless asked for.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: an argument of the wrong shape, on another device, or a backend that cannot run here.

    Example:
        >>> q, k, v = torch.randn(3, 1, 64, 2, 32)
        >>> o, state = chunk_retention(q, k, v, output_final_state=True)
        >>> o.shape, state.shape
        (torch.Size([1, 64, 2, 32]), torch.Size([1, 2, 32, 32]))
    """
    scale = check_heads(q, k, v, {}, scale, initial_state, cu_seqlens, state_v_first=state_v_first, grouped=True)
    chosen = choose_backend(q, backend)
    if chosen == "reference":
        return retention_reference(
            q,
            k,
            v,
            scale=scale,
            initial_state=initial_state,
            output_final_state=output_final_state,
            state_v_first=state_v_first,
            cu_seqlens=cu_seqlens,
        )
    g_gamma = decay_per_head(v, _log_gamma)
    return run_chunk_simple_gla(
        q, k, v, None, g_gamma, initial_state, cu_seqlens, scale, output_final_state, state_v_first, chosen
    )


#: The peer's name for a form that ran in one kernel; here the chunk form is the fused one.
fused_chunk_retention = chunk_retention


def fused_recurrent_retention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    reverse: bool = False,
    state_v_first: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""Retention one step after the other: for decoding and short sequences (arXiv 2307.08621).

    .. math:: S_t = \gamma_h\, S_{t-1} + k_t v_t^\top, \qquad o_t = scale \cdot S_t^\top q_t, \qquad
        \gamma_h = 1 - 2^{-5-h}

    Arguments, precision, results and errors are those of :func:`chunk_retention`, and in addition:

    Args:
        q: queries ``[B, T, H, K]``.
        k: keys ``[B, T, H, K]``.
        v: values ``[B, T, HV, V]``.
        scale: factor on the scores, ``K ** -0.5`` unless given.
        initial_state: ``[N, HV, K, V]``.
        output_final_state: also return the last state.
        reverse: run each sequence from its end to its start.
        state_v_first: states are ``[N, HV, V, K]``.
        cu_seqlens: boundaries of packed sequences ``[N + 1]``; B must be 1.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        ``(o, final_state)``: o ``[B, T, HV, V]`` in the dtype of v; the state in float32, None unless asked for.

    Example:
        >>> q, k, v = torch.randn(3, 1, 64, 2, 32)
        >>> o, state = fused_recurrent_retention(q, k, v, output_final_state=True)
        >>> o.shape, state.shape
        (torch.Size([1, 64, 2, 32]), torch.Size([1, 2, 32, 32]))
    """
    scale = check_heads(q, k, v, {}, scale, initial_state, cu_seqlens, state_v_first=state_v_first, grouped=True)
    chosen = choose_backend(q, backend)
    if chosen == "reference":
        return retention_reference(
            q,
            k,
            v,
            scale=scale,
            initial_state=initial_state,
            output_final_state=output_final_state,
            reverse=reverse,
            state_v_first=state_v_first,
            cu_seqlens=cu_seqlens,
        )
    g = decay_per_head(v, _log_gamma).expand(v.shape[:3])
    return run_recurrent_gla(
        q, k, v, initial_state, cu_seqlens, scale, output_final_state, reverse, state_v_first, chosen, g=g
    )


def parallel_retention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float | None = None,
    output_attentions: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""Retention, and on request its attention matrix (arXiv 2307.08621).

    .. math:: attn_{ij} = scale \cdot q_i^\top k_j\, \gamma_h^{i-j} \text{ for } j \le i, \qquad o = attn\, v

    The output is that of :func:`chunk_retention`, whose arguments and errors these are; only the matrix costs time
    and memory that are quadratic in T.

    Args:
        q: queries ``[B, T, H, K]``.
        k: keys ``[B, T, H, K]``.
        v: values ``[B, T, HV, V]``.
        scale: factor on the scores, ``K ** -0.5`` unless given.
        output_attentions: also return the matrix.
        cu_seqlens: boundaries of packed sequences ``[N + 1]``; B must be 1.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        ``(o, attn)``: attn ``[B, HV, T, T]`` in float32 (float64 for float64 inputs), None unless asked for.

    Raises:
        ValueError: the matrix of packed sequences is asked for.

    Example:
        >>> q, k, v = torch.randn(3, 1, 64, 2, 32)
        >>> o, attention = parallel_retention(q, k, v, output_attentions=True)
        >>> attention.shape
        torch.Size([1, 2, 64, 64])
    """
    scale = check_heads(q, k, v, {}, scale, None, cu_seqlens, grouped=True)
    g_gamma = decay_per_head(v, _log_gamma)
    return parallel_simple_gla(q, k, v, None, scale, output_attentions, cu_seqlens, g_gamma=g_gamma, backend=backend)


def _log_gamma(head: torch.Tensor) -> torch.Tensor:
    return torch.log1p(-torch.exp2(-5 - head))
