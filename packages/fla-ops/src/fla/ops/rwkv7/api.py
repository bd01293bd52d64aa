"""The public functions of RWKV-7's recurrence: what they compute and accept."""

from __future__ import annotations

import torch

from fla.ops._engines.low_rank.ops import run_chunk_dplr_delta_rule
from fla.ops._engines.low_rank_steps.ops import run_recurrent_dplr_delta_rule
from fla.ops.generalized_delta_rule.api import check_operands
from fla.ops.rwkv7.reference import rwkv7_reference
from fla.utils.backends import choose_backend
from fla.utils.validation import resolve_boundaries

#: What these functions call the operands of the generalized delta rule.
NAMES = ("r", "a", "b", "w")
#: An int, because ``torch.compile`` makes an input of a float that is a default, and then compiles twice.
NO_SCALE = 1


def chunk_rwkv7(
    r: torch.Tensor,
    w: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    scale: float | None = NO_SCALE,
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
    r"""RWKV-7's recurrence over whole sequences, chunk by chunk (arXiv 2503.14456).

    .. math::
        S_t = (\mathrm{diag}(e^{w_t}) + b_t a_t^\top)\, S_{t-1} + k_t v_t^\top, \qquad o_t = scale \cdot S_t^\top r_t

    This is :func:`fla.ops.generalized_delta_rule.chunk_dplr_delta_rule` by other names: its precision and errors.

    Args:
        r: receptances ``[B, T, H, K]``; float32, bfloat16, float16, or float64 on the torch backend.
        w: log decay per key channel ``[B, T, H, K]``, natural logarithm, at most 0; any floating dtype. The model's are
            above -0.607.
        k: keys ``[B, T, H, K]``.
        v: values ``[B, T, H, V]``.
        a: where the state is read before a step ``[B, T, H, K]``; the model's are negative unit vectors.
        b: where what was read is written ``[B, T, H, K]``; the model's are -a, weakened by up to all of it.
        scale: factor on the scores, 1 unless given; None for ``K ** -0.5``.
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

    Example:
        >>> r, k, v = torch.randn(3, 1, 64, 2, 32)
        >>> kk = F.normalize(torch.randn(1, 64, 2, 32), dim=-1)
        >>> a, b = -kk, kk * torch.rand(1, 64, 2, 1)
        >>> o, _ = chunk_rwkv7(r, F.logsigmoid(torch.randn(1, 64, 2, 32)), k, v, a, b)
        >>> o.shape
        torch.Size([1, 64, 2, 32])
    """
    cu_seqlens = resolve_boundaries(r, cu_seqlens, cu_seqlens_cpu)
    scale = check_operands(r, k, v, a, b, w, scale, initial_state, cu_seqlens, NAMES)
    chosen = choose_backend(r, backend)
    if chosen == "reference":
        return rwkv7_reference(
            r,
            w=w,
            k=k,
            v=v,
            a=a,
            b=b,
            scale=scale,
            initial_state=initial_state,
            output_final_state=output_final_state,
            cu_seqlens=cu_seqlens,
        )
    return run_chunk_dplr_delta_rule(r, k, v, a, b, w, initial_state, cu_seqlens, scale, output_final_state, chosen)


def fused_recurrent_rwkv7(
    r: torch.Tensor,
    w: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = True,
    cu_seqlens: torch.Tensor | None = None,
    reverse: bool = False,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""RWKV-7's recurrence, one step after the other: for decoding and short sequences (arXiv 2503.14456).

    .. math::
        S_t = (\mathrm{diag}(e^{w_t}) + b_t a_t^\top)\, S_{t-1} + k_t v_t^\top, \qquad o_t = scale \cdot S_t^\top r_t

    Arguments, precision, results and errors are those of :func:`chunk_rwkv7`, but for two defaults, and in addition:

    Args:
        r: receptances ``[B, T, H, K]``.
        w: log decay per key channel ``[B, T, H, K]``.
        k: keys ``[B, T, H, K]``.
        v: values ``[B, T, H, V]``.
        a: where the state is read ``[B, T, H, K]``.
        b: where what was read is written ``[B, T, H, K]``.
        scale: factor on the scores, ``K ** -0.5`` unless given.
        initial_state: ``[N, H, K, V]``.
        output_final_state: also return the last state, as it is unless told otherwise.
        cu_seqlens: boundaries of packed sequences ``[N + 1]``; B must be 1.
        reverse: run each sequence from its end to its start.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        ``(o, final_state)``: o ``[B, T, H, V]`` in the dtype of v; the state in float32, None if it is not wanted.

    Example:
        >>> r, k, v = torch.randn(3, 1, 64, 2, 32)
        >>> kk = F.normalize(torch.randn(1, 64, 2, 32), dim=-1)
        >>> a, b = -kk, kk * torch.rand(1, 64, 2, 1)
        >>> o, _ = fused_recurrent_rwkv7(r, F.logsigmoid(torch.randn(1, 64, 2, 32)), k, v, a, b)
        >>> o.shape
        torch.Size([1, 64, 2, 32])
    """
    scale = check_operands(r, k, v, a, b, w, scale, initial_state, cu_seqlens, NAMES)
    return _recurrent(r, w, k, v, a, b, scale, initial_state, output_final_state, reverse, cu_seqlens, backend)


def fused_mul_recurrent_rwkv7(
    r: torch.Tensor,
    w: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    kk: torch.Tensor,
    a: torch.Tensor,
    scale: float | None = NO_SCALE,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    reverse: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""RWKV-7's recurrence, one step after the other, from what the model has (arXiv 2503.14456).

    .. math::
        S_t = (\mathrm{diag}(e^{w_t}) - (a_t \odot kk_t)\, kk_t^\top)\, S_{t-1} + k_t v_t^\top, \qquad
        o_t = scale \cdot S_t^\top r_t

    Arguments, precision, results and errors are those of :func:`fused_recurrent_rwkv7`, but for two defaults and:

    Args:
        r: receptances ``[B, T, H, K]``.
        w: log decay per key channel ``[B, T, H, K]``.
        k: keys ``[B, T, H, K]``.
        v: values ``[B, T, H, V]``.
        kk: unit vectors where the state is corrected ``[B, T, H, K]``, in the dtype of r.
        a: strength of the correction ``[B, T, H, K]``, from 0 to 1, in the dtype of r.
        scale: factor on the scores, 1 unless given; None for ``K ** -0.5``.
        initial_state: ``[N, H, K, V]``.
        output_final_state: also return the last state.
        reverse: run each sequence from its end to its start.
        cu_seqlens: boundaries of packed sequences ``[N + 1]``; B must be 1.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        ``(o, final_state)``: o ``[B, T, H, V]`` in the dtype of v; the state in float32, None unless asked for.

    Example:
        >>> r, k, v = torch.randn(3, 1, 64, 2, 32)
        >>> kk, a = F.normalize(torch.randn(1, 64, 2, 32), dim=-1), torch.rand(1, 64, 2, 32)
        >>> o, _ = fused_mul_recurrent_rwkv7(r, F.logsigmoid(torch.randn(1, 64, 2, 32)), k, v, kk, a)
        >>> o.shape
        torch.Size([1, 64, 2, 32])
    """
    names = ("r", "kk", "a", "w")
    scale = check_operands(r, k, v, kk, a, w, scale, initial_state, cu_seqlens, names)
    return _recurrent(r, w, k, v, -kk, kk * a, scale, initial_state, output_final_state, reverse, cu_seqlens, backend)


def _recurrent(
    r: torch.Tensor,
    w: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    scale: float,
    initial_state: torch.Tensor | None,
    output_final_state: bool,
    reverse: bool,
    cu_seqlens: torch.Tensor | None,
    backend: str | None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """:func:`fused_recurrent_rwkv7` on checked arguments."""
    chosen = choose_backend(r, backend)
    if chosen == "reference":
        return rwkv7_reference(
            r,
            w=w,
            k=k,
            v=v,
            a=a,
            b=b,
            scale=scale,
            initial_state=initial_state,
            output_final_state=output_final_state,
            cu_seqlens=cu_seqlens,
            reverse=reverse,
        )
    return run_recurrent_dplr_delta_rule(
        r, k, v, a, b, w, initial_state, cu_seqlens, scale, output_final_state, reverse, chosen
    )
