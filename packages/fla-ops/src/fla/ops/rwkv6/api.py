"""The public functions of RWKV-6's recurrence: what they compute and accept."""

from __future__ import annotations

import torch

from fla.ops._engines.channel_decay.ops import run_chunk_gla
from fla.ops._engines.decay_steps.ops import run_recurrent_gla
from fla.ops._shared.arguments import check_heads
from fla.ops.rwkv6.reference import rwkv6_reference
from fla.utils.backends import choose_backend
from fla.utils.validation import resolve_boundaries


def chunk_rwkv6(
    r: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    w: torch.Tensor,
    u: torch.Tensor,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    cu_seqlens_cpu: torch.Tensor | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""The recurrence of RWKV-6 over whole sequences, chunk by chunk (arXiv 2404.05892).

    .. math::
        o_t = scale \cdot (S_{t-1} + \mathrm{diag}(u)\, k_t v_t^\top)^\top r_t, \qquad
        S_t = \mathrm{diag}(e^{w_t})\, S_{t-1} + k_t v_t^\top

    The state, the decay and every sum are accumulated in float32 (float64 for float64 inputs); exponents are
    always sums of decays, so decays of any strength are safe. Differentiable once in every floating argument.

    Args:
        r: receptances ``[B, T, H, K]``; float32, bfloat16, float16, or float64 on the torch backend.
        k: keys ``[B, T, H, K]``.
        v: values ``[B, T, H, V]``.
        w: log decay per key channel ``[B, T, H, K]``, natural logarithm, at most 0; any floating dtype.
        u: bonus of the current token ``[H, K]``, any floating dtype.
        scale: factor on the scores, ``K ** -0.5`` unless given.
        initial_state: state before the first step ``[N, H, K, V]``; N is B, or the number of packed sequences.
        output_final_state: also return the state after the last step.
        cu_seqlens: boundaries of packed sequences ``[N + 1]``, int32 or int64, from 0 to T; B must be 1.
        cu_seqlens_cpu: the same on the CPU. Alone it is used; beside ``cu_seqlens`` it must agree, which is checked on
            the CPU. On a GPU ``cu_seqlens`` decides; there only ``FLA_DEBUG=1`` compares, which waits for the device.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        ``(o, final_state)``: o ``[B, T, H, V]`` in the dtype of v; the state in float32, None unless asked for.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: an argument of the wrong shape, on another device, or a backend that cannot run here.

    Example:
        >>> r, k, v = torch.randn(3, 1, 64, 2, 32)
        >>> w, u = F.logsigmoid(torch.randn(1, 64, 2, 32)), torch.randn(2, 32)
        >>> o, _ = chunk_rwkv6(r, k, v, w, u)
        >>> o.shape
        torch.Size([1, 64, 2, 32])
    """
    cu_seqlens = resolve_boundaries(r, cu_seqlens, cu_seqlens_cpu)
    others = {"w": (w, "B T H K"), "u": (u, "H K")}
    scale = check_heads(r, k, v, others, scale, initial_state, cu_seqlens, query="r")
    chosen = choose_backend(r, backend)
    if chosen == "reference":
        return rwkv6_reference(
            r,
            k,
            v,
            w=w,
            u=u,
            scale=scale,
            initial_state=initial_state,
            output_final_state=output_final_state,
            cu_seqlens=cu_seqlens,
        )
    return run_chunk_gla(r, k, v, w, initial_state, cu_seqlens, scale, output_final_state, False, chosen, u)


def fused_recurrent_rwkv6(
    r: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    w: torch.Tensor,
    u: torch.Tensor,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    reverse: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""The recurrence of RWKV-6, one step after the other: for decoding and short sequences (arXiv 2404.05892).

    .. math::
        o_t = scale \cdot (S_{t-1} + \mathrm{diag}(u)\, k_t v_t^\top)^\top r_t, \qquad
        S_t = \mathrm{diag}(e^{w_t})\, S_{t-1} + k_t v_t^\top

    Arguments, precision, results and errors are those of :func:`chunk_rwkv6`, and in addition:

    Args:
        r: receptances ``[B, T, H, K]``.
        k: keys ``[B, T, H, K]``.
        v: values ``[B, T, H, V]``.
        w: log decay per key channel ``[B, T, H, K]``.
        u: bonus of the current token ``[H, K]``.
        scale: factor on the scores, ``K ** -0.5`` unless given.
        initial_state: ``[N, H, K, V]``.
        output_final_state: also return the last state.
        reverse: run each sequence from its end to its start.
        cu_seqlens: boundaries of packed sequences ``[N + 1]``; B must be 1.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        ``(o, final_state)``: o ``[B, T, H, V]`` in the dtype of v; the state in float32, None unless asked for.

    Example:
        >>> r, k, v = torch.randn(3, 1, 64, 2, 32)
        >>> w, u = F.logsigmoid(torch.randn(1, 64, 2, 32)), torch.randn(2, 32)
        >>> o, _ = fused_recurrent_rwkv6(r, k, v, w, u)
        >>> o.shape
        torch.Size([1, 64, 2, 32])
    """
    others = {"w": (w, "B T H K"), "u": (u, "H K")}
    scale = check_heads(r, k, v, others, scale, initial_state, cu_seqlens, query="r")
    chosen = choose_backend(r, backend)
    if chosen == "reference":
        return rwkv6_reference(
            r,
            k,
            v,
            w=w,
            u=u,
            scale=scale,
            initial_state=initial_state,
            output_final_state=output_final_state,
            reverse=reverse,
            cu_seqlens=cu_seqlens,
        )
    return run_recurrent_gla(
        r, k, v, initial_state, cu_seqlens, scale, output_final_state, reverse, False, chosen, gk=w, u=u
    )
