"""The public functions of gated linear attention: what they compute and accept."""

from __future__ import annotations

import torch

from fla.ops._engines.channel_decay.ops import run_chunk_gla
from fla.ops._engines.decay_steps.ops import run_recurrent_gla
from fla.ops._shared.arguments import check_heads
from fla.ops.gla.reference import gla_reference
from fla.utils.backends import choose_backend
from fla.utils.validation import resolve_boundaries


def chunk_gla(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    state_v_first: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    cu_seqlens_cpu: torch.Tensor | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""Gated linear attention over whole sequences, chunk by chunk (arXiv 2312.06635).

    .. math:: S_t = \mathrm{diag}(e^{g_t})\, S_{t-1} + k_t v_t^\top, \qquad o_t = scale \cdot S_t^\top q_t

    The state, the decay and every sum are accumulated in float32 (float64 for float64 inputs); exponents are
    always differences of decays, so decays of any strength are safe. Differentiable once in every floating
    argument.

    Args:
        q: queries ``[B, T, H, K]``; float32, bfloat16, float16, or float64 on the torch backend.
        k: keys ``[B, T, H, K]``.
        v: values ``[B, T, H, V]``.
        g: log decay per key channel ``[B, T, H, K]``, natural logarithm, at most 0; any floating dtype.
        scale: factor on the scores, ``K ** -0.5`` unless given.
        initial_state: state before the first step ``[N, H, K, V]``; N is B, or the number of packed sequences.
        output_final_state: also return the state after the last step.
        state_v_first: states are ``[N, H, V, K]``.
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
        >>> q, k, v = torch.randn(3, 1, 64, 2, 32)
        >>> g = F.logsigmoid(torch.randn(1, 64, 2, 32))
        >>> o, state = chunk_gla(q, k, v, g, output_final_state=True)
        >>> o.shape, state.shape
        (torch.Size([1, 64, 2, 32]), torch.Size([1, 2, 32, 32]))
    """
    cu_seqlens = resolve_boundaries(q, cu_seqlens, cu_seqlens_cpu)
    gates = {"g": (g, "B T H K")}
    scale = check_heads(q, k, v, gates, scale, initial_state, cu_seqlens, state_v_first=state_v_first)
    chosen = choose_backend(q, backend)
    if chosen == "reference":
        return gla_reference(
            q,
            k,
            v,
            gk=g,
            scale=scale,
            initial_state=initial_state,
            output_final_state=output_final_state,
            state_v_first=state_v_first,
            cu_seqlens=cu_seqlens,
        )
    return run_chunk_gla(q, k, v, g, initial_state, cu_seqlens, scale, output_final_state, state_v_first, chosen)


#: The peer's name for a form that ran in one kernel; here the chunk form is the fused one.
fused_chunk_gla = chunk_gla


def fused_recurrent_gla(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    gk: torch.Tensor | None = None,
    gv: torch.Tensor | None = None,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    reverse: bool = False,
    state_v_first: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""Gated linear attention one step after the other: for decoding and short sequences (arXiv 2312.06635).

    .. math:: S_t = e^{gk_t} (e^{gv_t})^\top \odot S_{t-1} + k_t v_t^\top, \qquad o_t = scale \cdot S_t^\top q_t

    Arguments, precision, results and errors are those of :func:`chunk_gla`, and in addition:

    Args:
        q: queries ``[B, T, H, K]``.
        k: keys ``[B, T, H, K]``.
        v: values ``[B, T, H, V]``.
        gk: log decay per key channel ``[B, T, H, K]``, natural logarithm, at most 0; no decay unless given.
        gv: log decay per value channel ``[B, T, H, V]``, likewise.
        scale: factor on the scores, ``K ** -0.5`` unless given.
        initial_state: ``[N, H, K, V]``.
        output_final_state: also return the last state.
        reverse: run each sequence from its end to its start.
        state_v_first: states are ``[N, H, V, K]``.
        cu_seqlens: boundaries of packed sequences ``[N + 1]``; B must be 1.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        ``(o, final_state)``: o ``[B, T, H, V]`` in the dtype of v; the state in float32, None unless asked for.

    Example:
        >>> q, k, v = torch.randn(3, 1, 64, 2, 32)
        >>> g = F.logsigmoid(torch.randn(1, 64, 2, 32))
        >>> o, state = fused_recurrent_gla(q, k, v, gk=g, output_final_state=True)
        >>> o.shape, state.shape
        (torch.Size([1, 64, 2, 32]), torch.Size([1, 2, 32, 32]))
    """
    gates = {"gk": (gk, "B T H K?"), "gv": (gv, "B T H V?")}
    scale = check_heads(q, k, v, gates, scale, initial_state, cu_seqlens, state_v_first=state_v_first)
    chosen = choose_backend(q, backend)
    if chosen == "reference":
        return gla_reference(
            q,
            k,
            v,
            gk=gk,
            gv=gv,
            scale=scale,
            initial_state=initial_state,
            output_final_state=output_final_state,
            reverse=reverse,
            state_v_first=state_v_first,
            cu_seqlens=cu_seqlens,
        )
    return run_recurrent_gla(
        q, k, v, initial_state, cu_seqlens, scale, output_final_state, reverse, state_v_first, chosen, gk=gk, gv=gv
    )
