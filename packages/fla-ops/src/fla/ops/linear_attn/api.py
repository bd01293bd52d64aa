"""The public functions of linear attention: what they compute and accept."""

from __future__ import annotations

import torch

from fla.ops._engines.normalised_reads.ops import LinearState, check_linear_state, run_linear_attn
from fla.ops._shared.arguments import check_heads
from fla.ops.linear_attn.reference import linear_attn_reference
from fla.utils.backends import choose_backend

EPS = 1e-10


def chunk_linear_attn(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float | None = None,
    initial_state: LinearState | None = None,
    output_final_state: bool = False,
    normalize: bool = True,
    cu_seqlens: torch.Tensor | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, LinearState | None]:
    r"""Linear attention over whole sequences, chunk by chunk (arXiv 2006.16236).

    .. math:: S_t = S_{t-1} + k_t v_t^\top, \qquad z_t = z_{t-1} + k_t, \qquad
        o_t = \frac{scale \cdot S_t^\top q_t}{scale \cdot q_t \cdot z_t + 10^{-10}}

    or the numerator alone without ``normalize``. The normaliser needs weights ``q . k`` that are not negative, as
    feature maps make them. States and sums are accumulated in float32 (float64 for float64 inputs); with ``normalize``
    all is computed in float32, of half-precision operands too, and rounded after the division. Differentiable once in
    every floating argument.

    Args:
        q: queries ``[B, T, H, K]``; float32, bfloat16, float16, or float64 on the torch backend. K of any
            size, as feature maps make it.
        k: keys ``[B, T, H, K]``.
        v: values ``[B, T, H, V]``.
        scale: factor on the scores, ``K ** -0.5`` unless given.
        initial_state: state before the first step: S ``[N, H, K, V]``, or ``(S, z)`` with z ``[N, 1, H, K]`` where
            ``normalize``; N is B, or the number of packed sequences.
        output_final_state: also return the state after the last step.
        normalize: divide by the sum of the weights.
        cu_seqlens: boundaries of packed sequences ``[N + 1]``, int32 or int64, from 0 to T; B must be 1.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        ``(o, final_state)``: o ``[B, T, H, V]`` in the dtype of v; the state in float32, as ``initial_state``, None
        unless asked for.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: an argument of the wrong shape, on another device, S without z where ``normalize``, or a backend
            that cannot run here.

    Example:
        >>> q, k, v = torch.randn(3, 1, 64, 2, 32)
        >>> o, _ = chunk_linear_attn(F.elu(q) + 1, F.elu(k) + 1, v)
        >>> o.shape
        torch.Size([1, 64, 2, 32])
    """
    return _linear_attn(
        q, k, v, scale, initial_state, output_final_state, normalize, cu_seqlens, backend, recurrent=False
    )


#: The peer's name for a form that ran in one kernel; here the chunk form is the fused one.
fused_chunk_linear_attn = chunk_linear_attn


def fused_recurrent_linear_attn(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float | None = None,
    initial_state: LinearState | None = None,
    output_final_state: bool = False,
    reverse: bool = False,
    normalize: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, LinearState | None]:
    r"""Linear attention one step after the other: for decoding and short sequences (arXiv 2006.16236).

    .. math:: S_t = S_{t-1} + k_t v_t^\top, \qquad z_t = z_{t-1} + k_t, \qquad
        o_t = \frac{scale \cdot S_t^\top q_t}{scale \cdot q_t \cdot z_t + 10^{-10}}

    Arguments, precision, results and errors are those of :func:`chunk_linear_attn`, but here ``normalize`` must be
    asked for; and in addition:

    Args:
        q: queries ``[B, T, H, K]``.
        k: keys ``[B, T, H, K]``.
        v: values ``[B, T, H, V]``.
        scale: factor on the scores, ``K ** -0.5`` unless given.
        initial_state: S ``[N, H, K, V]``, or ``(S, z)`` with z ``[N, 1, H, K]``.
        output_final_state: also return the last state.
        reverse: run each sequence from its end to its start.
        normalize: divide by the sum of the weights.
        cu_seqlens: boundaries of packed sequences ``[N + 1]``; B must be 1.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        ``(o, final_state)``: o ``[B, T, H, V]`` in the dtype of v; the state in float32, None unless asked for.

    Example:
        >>> q, k, v = torch.randn(3, 1, 64, 2, 32)
        >>> o, _ = fused_recurrent_linear_attn(F.elu(q) + 1, F.elu(k) + 1, v, normalize=True)
        >>> o.shape
        torch.Size([1, 64, 2, 32])
    """
    return _linear_attn(
        q, k, v, scale, initial_state, output_final_state, normalize, cu_seqlens, backend, True, reverse
    )


def _linear_attn(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float | None,
    initial_state: LinearState | None,
    output_final_state: bool,
    normalize: bool,
    cu_seqlens: torch.Tensor | None,
    backend: str | None,
    recurrent: bool,
    reverse: bool = False,
) -> tuple[torch.Tensor, LinearState | None]:
    scale = check_heads(q, k, v, {}, scale, None, cu_seqlens)
    check_linear_state(initial_state, normalize, q, v, q.shape[-1], cu_seqlens)
    chosen = choose_backend(q, backend)
    if chosen == "reference":
        return linear_attn_reference(
            q,
            k,
            v,
            scale=scale,
            initial_state=initial_state,
            output_final_state=output_final_state,
            reverse=reverse,
            normalize=normalize,
            cu_seqlens=cu_seqlens,
        )
    return run_linear_attn(
        q,
        k,
        v,
        scale,
        EPS if normalize else None,
        initial_state,
        output_final_state,
        cu_seqlens,
        chosen,
        recurrent=recurrent,
        reverse=reverse,
    )
