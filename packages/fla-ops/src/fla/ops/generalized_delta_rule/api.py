"""The public functions of the generalized delta rule: what they compute and accept."""

from __future__ import annotations

import torch

from fla.ops._engines.low_rank.ops import run_chunk_dplr_delta_rule
from fla.ops._engines.low_rank_steps.ops import run_recurrent_dplr_delta_rule
from fla.ops._shared.arguments import check_heads
from fla.ops.generalized_delta_rule.reference import generalized_delta_rule_reference
from fla.utils.backends import choose_backend
from fla.utils.validation import check_same_dtype, resolve_boundaries


def chunk_dplr_delta_rule(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    gk: torch.Tensor | None,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    cu_seqlens_cpu: torch.Tensor | None = None,
    safe_gate: bool = False,
    chunk_size: int | None = None,
    disable_recompute: bool = False,
    lower_bound: float | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""The delta rule with a transition that is diagonal plus low rank, chunk by chunk (arXiv 2503.14456).

    .. math::
        S_t = (\mathrm{diag}(e^{gk_t}) + b_t a_t^\top)\, S_{t-1} + k_t v_t^\top, \qquad o_t = scale \cdot S_t^\top q_t

    The state, the decay and every sum are accumulated in float32 (float64 for float64 inputs); exponents are always
    sums of decays, so decays of any strength are safe. Differentiable once in every floating argument.

    Args:
        q: queries ``[B, T, H, K]``; float32, bfloat16, float16, or float64 on the torch backend.
        k: keys ``[B, T, H, K]``.
        v: values ``[B, T, H, V]``.
        a: where the state is read before a step ``[B, T, H, K]``, in the dtype of q.
        b: where what was read is written ``[B, T, H, K]``, in the dtype of q; the state stays bounded where the
            transition is no expansion, as with a of norm 1 and b between -2a and 0.
        gk: log decay per key channel ``[B, T, H, K]``, natural logarithm, at most 0; any floating dtype. None for none.
        scale: factor on the scores, ``K ** -0.5`` unless given.
        initial_state: state before the first step ``[N, H, K, V]``; N is B, or the number of packed sequences.
        output_final_state: also return the state after the last step.
        cu_seqlens: boundaries of packed sequences ``[N + 1]``, int32 or int64, from 0 to T; B must be 1.
        cu_seqlens_cpu: the same on the CPU. Alone it is used; beside ``cu_seqlens`` it must agree, which is checked on
            the CPU. On a GPU ``cu_seqlens`` decides; there only ``FLA_DEBUG=1`` compares, which waits for the device.
        safe_gate: a promise that decays end at ``lower_bound``; nothing depends on it, decays of any strength are safe.
        chunk_size: nothing depends on it: the kernels choose their chunks.
        disable_recompute: nothing depends on it: what the backward pass keeps is the kernels' choice.
        lower_bound: see ``safe_gate``.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        ``(o, final_state)``: o ``[B, T, H, V]`` in the dtype of v; the state in float32, None unless asked for.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: an argument of the wrong shape, on another device, or a backend that cannot run here.

    Example:
        >>> q, k, v = torch.randn(3, 1, 64, 2, 32)
        >>> kk = F.normalize(torch.randn(1, 64, 2, 32), dim=-1)
        >>> a, b = -kk, kk * torch.rand(1, 64, 2, 1)
        >>> o, _ = chunk_dplr_delta_rule(q, k, v, a, b, gk=F.logsigmoid(torch.randn(1, 64, 2, 32)))
        >>> o.shape
        torch.Size([1, 64, 2, 32])
    """
    cu_seqlens = resolve_boundaries(q, cu_seqlens, cu_seqlens_cpu)
    scale = check_operands(q, k, v, a, b, gk, scale, initial_state, cu_seqlens)
    chosen = choose_backend(q, backend)
    if chosen == "reference":
        return generalized_delta_rule_reference(
            q,
            k,
            v,
            a=a,
            b=b,
            gk=gk,
            scale=scale,
            initial_state=initial_state,
            output_final_state=output_final_state,
            cu_seqlens=cu_seqlens,
        )
    return run_chunk_dplr_delta_rule(q, k, v, a, b, gk, initial_state, cu_seqlens, scale, output_final_state, chosen)


def fused_recurrent_dplr_delta_rule(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    gk: torch.Tensor | None,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    reverse: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""The same one step after the other: for decoding and short sequences (arXiv 2503.14456).

    .. math::
        S_t = (\mathrm{diag}(e^{gk_t}) + b_t a_t^\top)\, S_{t-1} + k_t v_t^\top, \qquad o_t = scale \cdot S_t^\top q_t

    Arguments, precision, results and errors are those of :func:`chunk_dplr_delta_rule`, and in addition:

    Args:
        q: queries ``[B, T, H, K]``.
        k: keys ``[B, T, H, K]``.
        v: values ``[B, T, H, V]``.
        a: where the state is read ``[B, T, H, K]``.
        b: where what was read is written ``[B, T, H, K]``.
        gk: log decay per key channel ``[B, T, H, K]``; None for none.
        scale: factor on the scores, ``K ** -0.5`` unless given.
        initial_state: ``[N, H, K, V]``.
        output_final_state: also return the last state.
        reverse: run each sequence from its end to its start.
        cu_seqlens: boundaries of packed sequences ``[N + 1]``; B must be 1.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        ``(o, final_state)``: o ``[B, T, H, V]`` in the dtype of v; the state in float32, None unless asked for.

    Example:
        >>> q, k, v = torch.randn(3, 1, 64, 2, 32)
        >>> kk = F.normalize(torch.randn(1, 64, 2, 32), dim=-1)
        >>> a, b = -kk, kk * torch.rand(1, 64, 2, 1)
        >>> o, _ = fused_recurrent_dplr_delta_rule(q, k, v, a, b, gk=F.logsigmoid(torch.randn(1, 64, 2, 32)))
        >>> o.shape
        torch.Size([1, 64, 2, 32])
    """
    scale = check_operands(q, k, v, a, b, gk, scale, initial_state, cu_seqlens)
    chosen = choose_backend(q, backend)
    if chosen == "reference":
        return generalized_delta_rule_reference(
            q,
            k,
            v,
            a=a,
            b=b,
            gk=gk,
            scale=scale,
            initial_state=initial_state,
            output_final_state=output_final_state,
            reverse=reverse,
            cu_seqlens=cu_seqlens,
        )
    return run_recurrent_dplr_delta_rule(
        q, k, v, a, b, gk, initial_state, cu_seqlens, scale, output_final_state, reverse, chosen
    )


def chunk_iplr_delta_rule(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    cu_seqlens_cpu: torch.Tensor | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""The delta rule with a transition that is identity plus low rank, chunk by chunk (arXiv 2503.14456).

    .. math:: S_t = (I + b_t a_t^\top)\, S_{t-1} + k_t v_t^\top, \qquad o_t = scale \cdot S_t^\top q_t

    This is :func:`chunk_dplr_delta_rule` without decay: its arguments, precision, results and errors.

    Args:
        q: queries ``[B, T, H, K]``.
        k: keys ``[B, T, H, K]``.
        v: values ``[B, T, H, V]``.
        a: where the state is read ``[B, T, H, K]``.
        b: where what was read is written ``[B, T, H, K]``.
        scale: factor on the scores, ``K ** -0.5`` unless given.
        initial_state: ``[N, H, K, V]``.
        output_final_state: also return the last state.
        cu_seqlens: boundaries of packed sequences ``[N + 1]``; B must be 1.
        cu_seqlens_cpu: the same on the CPU. Alone it is used; beside ``cu_seqlens`` it must agree, which is checked on
            the CPU. On a GPU ``cu_seqlens`` decides; there only ``FLA_DEBUG=1`` compares, which waits for the device.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        ``(o, final_state)``: o ``[B, T, H, V]`` in the dtype of v; the state in float32, None unless asked for.

    Example:
        >>> q, k, v = torch.randn(3, 1, 64, 2, 32)
        >>> kk = F.normalize(torch.randn(1, 64, 2, 32), dim=-1)
        >>> a, b = -kk, kk * torch.rand(1, 64, 2, 1)
        >>> o, _ = chunk_iplr_delta_rule(q, k, v, a, b)
        >>> o.shape
        torch.Size([1, 64, 2, 32])
    """
    return chunk_dplr_delta_rule(
        q,
        k,
        v,
        a,
        b,
        None,
        scale,
        initial_state,
        output_final_state,
        cu_seqlens,
        cu_seqlens_cpu,
        backend=backend,
    )


def fused_recurrent_iplr_delta_rule(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    reverse: bool = False,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""The same one step after the other: for decoding and short sequences (arXiv 2503.14456).

    .. math:: S_t = (I + b_t a_t^\top)\, S_{t-1} + k_t v_t^\top, \qquad o_t = scale \cdot S_t^\top q_t

    Arguments, precision, results and errors are those of :func:`chunk_iplr_delta_rule`, and in addition:

    Args:
        q: queries ``[B, T, H, K]``.
        k: keys ``[B, T, H, K]``.
        v: values ``[B, T, H, V]``.
        a: where the state is read ``[B, T, H, K]``.
        b: where what was read is written ``[B, T, H, K]``.
        scale: factor on the scores, ``K ** -0.5`` unless given.
        initial_state: ``[N, H, K, V]``.
        output_final_state: also return the last state.
        cu_seqlens: boundaries of packed sequences ``[N + 1]``; B must be 1.
        reverse: run each sequence from its end to its start.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        ``(o, final_state)``: o ``[B, T, H, V]`` in the dtype of v; the state in float32, None unless asked for.

    Example:
        >>> q, k, v = torch.randn(3, 1, 64, 2, 32)
        >>> kk = F.normalize(torch.randn(1, 64, 2, 32), dim=-1)
        >>> a, b = -kk, kk * torch.rand(1, 64, 2, 1)
        >>> o, _ = fused_recurrent_iplr_delta_rule(q, k, v, a, b)
        >>> o.shape
        torch.Size([1, 64, 2, 32])
    """
    return fused_recurrent_dplr_delta_rule(
        q, k, v, a, b, None, scale, initial_state, output_final_state, reverse, cu_seqlens, backend
    )


def check_operands(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    gk: torch.Tensor | None,
    scale: float | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    names: tuple[str, str, str, str] = ("q", "a", "b", "gk?"),
) -> float:
    """Validate the arguments of :func:`chunk_dplr_delta_rule` and return the scale.

    Args:
        q: as there, and so are the others.
        k: likewise.
        v: likewise.
        a: likewise.
        b: likewise.
        gk: likewise.
        scale: likewise.
        initial_state: likewise.
        cu_seqlens: likewise.
        names: what the caller calls q, a, b and gk, the last with a question mark if it may be None.
    """
    query, read, write, decay = names
    others = {
        read: (a, "B T H K"),
        write: (b, "B T H K"),
        decay.rstrip("?"): (gk, "B T H K?" if decay.endswith("?") else "B T H K"),
    }
    scale = check_heads(q, k, v, others, scale, initial_state, cu_seqlens, query=query)
    check_same_dtype({query: q, read: a, write: b})
    return scale
