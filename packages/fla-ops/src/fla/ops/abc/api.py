"""The public functions of attention with bounded memory control: what they compute and accept."""

from __future__ import annotations

import torch

from fla.ops.gsa.api import State, chunk_gsa, fused_recurrent_gsa


def chunk_abc(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    s: torch.Tensor,
    initial_state: State | None = None,
    output_final_state: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    scale: float | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, State | None]:
    r"""Attention with bounded memory control over whole sequences, chunk by chunk (arXiv 2110.02488).

    .. math::
        H^k_t = \sum_{j \le t} k_j (e^{s_j - z_t})^\top, \quad H^v_t = \sum_{j \le t} e^{s_j - z_t} v_j^\top, \quad
        z_t = \log \sum_{j \le t} e^{s_j}, \quad o_t = {H^v_t}^\top \mathrm{softmax}(scale \cdot {H^k_t}^\top q_t)

    It is gated slot attention with normalised writes: precision and errors are those of
    :func:`fla.ops.gsa.chunk_gsa`.

    Args:
        q: queries ``[B, T, HQ, K]``, HQ a multiple of H.
        k: keys ``[B, T, H, K]``.
        v: values ``[B, T, H, V]``.
        s: logarithms of what is written to each of M slots ``[B, T, H, M]``.
        initial_state: ``(Hk [N, H, K, M], Hv [N, H, M, V], z [N, H, M])``: what goes on has to know the sum.
        output_final_state: also return the states after the last step.
        cu_seqlens: boundaries of packed sequences ``[N + 1]``; B must be 1.
        scale: factor on the scores, ``K ** -0.5`` unless given.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        ``(o, final_state)``: o ``[B, T, HQ, V]`` in the dtype of v; the states in float32, None unless asked for.

    Example:
        >>> q, k, v = torch.randn(3, 1, 64, 2, 32)
        >>> s = torch.randn(1, 64, 2, 16)
        >>> o, _ = chunk_abc(q, k, v, s)
        >>> o.shape
        torch.Size([1, 64, 2, 32])
    """
    return chunk_gsa(q, k, v, s, None, scale, initial_state, output_final_state, cu_seqlens=cu_seqlens, backend=backend)


def fused_recurrent_abc(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    s: torch.Tensor,
    initial_state: State | None = None,
    output_final_state: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    scale: float | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, State | None]:
    """Attention with bounded memory control, one step after the other (arXiv 2110.02488).

    The recurrence, arguments, precision, results and errors are those of :func:`chunk_abc`.

    Example:
        >>> q, k, v = torch.randn(3, 1, 64, 2, 32)
        >>> s = torch.randn(1, 64, 2, 16)
        >>> o, _ = fused_recurrent_abc(q, k, v, s)
        >>> o.shape
        torch.Size([1, 64, 2, 32])
    """
    return fused_recurrent_gsa(
        q, k, v, s, None, scale, initial_state, output_final_state, cu_seqlens=cu_seqlens, backend=backend
    )
