"""The public functions of linear attention with scalar decay: what they compute and accept."""

from __future__ import annotations

import torch

from fla.ops._engines.decay_steps.ops import run_recurrent_gla
from fla.ops._engines.scalar_decay.ops import run_chunk_simple_gla
from fla.ops._shared.arguments import check_heads, sum_dtype
from fla.ops.simple_gla.reference import simple_gla_reference
from fla.utils.backends import choose_backend
from fla.utils.validation import resolve_boundaries

_GATES = {"g": "B T HV?", "g_gamma": "HV?"}


def chunk_simple_gla(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor | None = None,
    g_gamma: torch.Tensor | None = None,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    state_v_first: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    cu_seqlens_cpu: torch.Tensor | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""Linear attention with a scalar decay over whole sequences, chunk by chunk (arXiv 2405.21060, 2405.11582).

    .. math:: S_t = e^{g_t + \gamma}\, S_{t-1} + k_t v_t^\top, \qquad o_t = scale \cdot S_t^\top q_t

    The state, the decay and every sum are accumulated in float32 (float64 for float64 inputs); exponents are
    always sums of decays, so decays of any strength are safe. Differentiable once in every floating argument.

    Args:
        q: queries ``[B, T, H, K]``; float32, bfloat16, float16, or float64 on the torch backend.
        k: keys ``[B, T, H, K]``.
        v: values ``[B, T, HV, V]``, HV a multiple of H: value heads ``i * HV / H`` and following share query head i.
        g: log decay of each step ``[B, T, HV]``, natural logarithm, at most 0; any floating dtype. None for none.
        g_gamma: log decay of each head ``[HV]``, the same at every step, on top of ``g``. None for none.
        scale: factor on the scores, ``K ** -0.5`` unless given.
        initial_state: state before the first step ``[N, HV, K, V]``; N is B, or the number of packed sequences.
        output_final_state: also return the state after the last step.
        state_v_first: states are ``[N, HV, V, K]``.
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
        >>> q, k, v = torch.randn(3, 1, 64, 2, 32)
        >>> g = F.logsigmoid(torch.randn(1, 64, 2))
        >>> o, state = chunk_simple_gla(q, k, v, g, output_final_state=True)
        >>> o.shape, state.shape
        (torch.Size([1, 64, 2, 32]), torch.Size([1, 2, 32, 32]))
    """
    cu_seqlens = resolve_boundaries(q, cu_seqlens, cu_seqlens_cpu)
    scale = check_heads(
        q,
        k,
        v,
        {"g": (g, _GATES["g"]), "g_gamma": (g_gamma, _GATES["g_gamma"])},
        scale,
        initial_state,
        cu_seqlens,
        state_v_first=state_v_first,
        grouped=True,
    )
    chosen = choose_backend(q, backend)
    if chosen == "reference":
        return simple_gla_reference(
            q,
            k,
            v,
            g=g,
            g_gamma=g_gamma,
            scale=scale,
            initial_state=initial_state,
            output_final_state=output_final_state,
            state_v_first=state_v_first,
            cu_seqlens=cu_seqlens,
        )
    if g_gamma is not None and (g is not None or g_gamma.requires_grad):
        g, g_gamma = _per_step(v, g, g_gamma), None
    return run_chunk_simple_gla(
        q, k, v, g, g_gamma, initial_state, cu_seqlens, scale, output_final_state, state_v_first, chosen
    )


#: The peer's name for a form that ran in one kernel.
fused_chunk_simple_gla = chunk_simple_gla


def fused_recurrent_simple_gla(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor | None = None,
    g_gamma: torch.Tensor | None = None,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    reverse: bool = False,
    state_v_first: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""Linear attention with a scalar decay, one step after the other: for decoding and short sequences.

    .. math:: S_t = e^{g_t + \gamma}\, S_{t-1} + k_t v_t^\top, \qquad o_t = scale \cdot S_t^\top q_t

    Arguments, precision, results and errors are those of :func:`chunk_simple_gla`, and in addition:

    Args:
        q: queries ``[B, T, H, K]``.
        k: keys ``[B, T, H, K]``.
        v: values ``[B, T, HV, V]``.
        g: log decay of each step ``[B, T, HV]``.
        g_gamma: log decay of each head ``[HV]``.
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
        >>> g = F.logsigmoid(torch.randn(1, 64, 2))
        >>> o, state = fused_recurrent_simple_gla(q, k, v, g, output_final_state=True)
        >>> o.shape, state.shape
        (torch.Size([1, 64, 2, 32]), torch.Size([1, 2, 32, 32]))
    """
    gates = {"g": (g, _GATES["g"]), "g_gamma": (g_gamma, _GATES["g_gamma"])}
    scale = check_heads(q, k, v, gates, scale, initial_state, cu_seqlens, state_v_first=state_v_first, grouped=True)
    chosen = choose_backend(q, backend)
    if chosen == "reference":
        return simple_gla_reference(
            q,
            k,
            v,
            g=g,
            g_gamma=g_gamma,
            scale=scale,
            initial_state=initial_state,
            output_final_state=output_final_state,
            reverse=reverse,
            state_v_first=state_v_first,
            cu_seqlens=cu_seqlens,
        )
    if g_gamma is not None:
        g = _per_step(v, g, g_gamma)
    return run_recurrent_gla(
        q, k, v, initial_state, cu_seqlens, scale, output_final_state, reverse, state_v_first, chosen, g=g
    )


def parallel_simple_gla(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor | None = None,
    scale: float | None = None,
    output_attentions: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    cu_seqlens_cpu: torch.Tensor | None = None,
    g_gamma: torch.Tensor | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""Linear attention with a scalar decay, and on request its attention matrix.

    .. math:: attn_{ij} = scale \cdot q_i^\top k_j\, e^{g_{j+1} + \dots + g_i} \text{ for } j \le i, \qquad o = attn\, v

    The output is that of :func:`chunk_simple_gla`, whose arguments and errors these are; only the matrix costs time
    and memory that are quadratic in T.

    Args:
        q: queries ``[B, T, H, K]``.
        k: keys ``[B, T, H, K]``.
        v: values ``[B, T, HV, V]``.
        g: log decay of each step ``[B, T, HV]``.
        scale: factor on the scores, ``K ** -0.5`` unless given.
        output_attentions: also return the matrix.
        cu_seqlens: boundaries of packed sequences ``[N + 1]``; B must be 1.
        cu_seqlens_cpu: the same on the CPU. Alone it is used; beside ``cu_seqlens`` it must agree, which is checked on
            the CPU. On a GPU ``cu_seqlens`` decides; there only ``FLA_DEBUG=1`` compares, which waits for the device.
        g_gamma: log decay of each head ``[HV]``.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        ``(o, attn)``: attn ``[B, HV, T, T]`` in float32 (float64 for float64 inputs), None unless asked for.

    Raises:
        ValueError: the matrix of packed sequences is asked for.

    Example:
        >>> q, k, v = torch.randn(3, 1, 64, 2, 32)
        >>> g = F.logsigmoid(torch.randn(1, 64, 2))
        >>> o, attention = parallel_simple_gla(q, k, v, g, output_attentions=True)
        >>> attention.shape
        torch.Size([1, 2, 64, 64])
    """
    cu_seqlens = resolve_boundaries(q, cu_seqlens, cu_seqlens_cpu)
    if output_attentions and cu_seqlens is not None:
        raise ValueError("output_attentions: there is no one matrix of packed sequences; expected cu_seqlens=None")
    o, _ = chunk_simple_gla(q, k, v, g, g_gamma, scale, cu_seqlens=cu_seqlens, backend=backend)
    return o, _attention_matrix(q, k, v, g, g_gamma, scale) if output_attentions else None


def _attention_matrix(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor | None,
    g_gamma: torch.Tensor | None,
    scale: float | None,
) -> torch.Tensor:
    groups = v.shape[2] // q.shape[2]
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    q_, k_ = (x.to(sum_dtype(q)).repeat_interleave(groups, 2).transpose(1, 2) for x in (q, k))
    scores = (q_ * scale) @ k_.transpose(-1, -2)
    if g is not None or g_gamma is not None:
        # In float64 the difference of two sums is as good as the sum of what lies between.
        sums = _per_step(v, g, g_gamma).double().transpose(1, 2).cumsum(-1)
        between = (sums.unsqueeze(-1) - sums.unsqueeze(-2)).clamp(max=0.0)
        scores = scores * between.exp().to(scores.dtype)
    return scores.tril()


def _per_step(v: torch.Tensor, g: torch.Tensor | None, g_gamma: torch.Tensor | None) -> torch.Tensor:
    """The decays of every step and head ``[B, T, HV]`` together."""
    if g_gamma is None:
        assert g is not None
        return g
    total = g_gamma.to(sum_dtype(v)).expand(v.shape[:3])
    return total if g is None else total + g
