"""The public functions of Comba: what they compute and accept."""

from __future__ import annotations

import torch

from fla.ops._engines.delta.ops import run_chunk_gated_delta_rule
from fla.ops._engines.delta.options import unit
from fla.ops._engines.delta_steps.ops import run_recurrent_delta_rule
from fla.ops._shared.arguments import check_heads
from fla.ops.comba.reference import comba_reference
from fla.utils.backends import choose_backend
from fla.utils.validation import resolve_boundaries


def chunk_comba(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    p: torch.Tensor,
    g: torch.Tensor,
    beta: torch.Tensor | None = None,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    cu_seqlens_cpu: torch.Tensor | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""Comba over whole sequences, chunk by chunk (arXiv 2506.02475).

    .. math::
        S_t = e^{g_t} S_{t-1} + \beta_t k_t (v_t - S_{t-1}^\top p_t)^\top, \qquad o_t = scale \cdot S_t^\top q_t

    The state, the decay and every sum are accumulated in float32 (float64 for float64 inputs); exponents are
    always sums of decays, so decays of any strength are safe. Differentiable once in every floating argument.

    Args:
        q: queries ``[B, T, H, K]``; float32, bfloat16, float16, or float64 on the torch backend.
        k: keys that are written to ``[B, T, H, K]``.
        v: values ``[B, T, HV, V]``, HV a multiple of H: value heads ``i * HV / H`` and following share query head i.
        p: keys under which what is to be corrected is read, before it decays ``[B, T, H, K]``. The state stays bounded
            where p is along k and ``beta k^T p`` at most ``1 + exp(g)``.
        g: log decay of each step ``[B, T, HV]``, natural logarithm, at most 0; any floating dtype.
        beta: write strength of each step ``[B, T, HV]``, any floating dtype; 1 unless given.
        scale: factor on the scores, ``K ** -0.5`` unless given.
        initial_state: state before the first step ``[N, HV, K, V]``; N is B, or the number of packed sequences.
        output_final_state: also return the state after the last step.
        use_qk_l2norm_in_kernel: divide q, k and p by their norms, in float32.
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
        >>> g = F.logsigmoid(torch.randn(1, 64, 2))
        >>> o, _ = chunk_comba(q, k, v, p=0.9 * k, g=g, beta=beta)
        >>> o.shape
        torch.Size([1, 64, 2, 32])
    """
    cu_seqlens = resolve_boundaries(q, cu_seqlens, cu_seqlens_cpu)
    others = {"p": (p, "B T H K"), "g": (g, "B T HV"), "beta": (beta, "B T HV?")}
    scale = check_heads(q, k, v, others, scale, initial_state, cu_seqlens, grouped=True)
    chosen = choose_backend(q, backend)
    if use_qk_l2norm_in_kernel:
        q, k, p = unit(q), unit(k), unit(p)
    if chosen == "reference":
        return comba_reference(
            q,
            k,
            v,
            p=p,
            g=g,
            beta=beta,
            scale=scale,
            initial_state=initial_state,
            output_final_state=output_final_state,
            cu_seqlens=cu_seqlens,
        )
    beta = v.new_ones(v.shape[:3]) if beta is None else beta
    return run_chunk_gated_delta_rule(
        q, k, v, beta, g, p, initial_state, cu_seqlens, scale, output_final_state, False, chosen
    )


def fused_recurrent_comba(
    q: torch.Tensor,
    k: torch.Tensor,
    p: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    beta: torch.Tensor | None = None,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""Comba one step after the other: for decoding and short sequences (arXiv 2506.02475).

    .. math::
        S_t = e^{g_t} S_{t-1} + \beta_t k_t (v_t - S_{t-1}^\top p_t)^\top, \qquad o_t = scale \cdot S_t^\top q_t

    Arguments, precision, results and errors are those of :func:`chunk_comba`, in another order: p before v.

    Args:
        q: queries ``[B, T, H, K]``.
        k: keys that are written to ``[B, T, H, K]``.
        p: keys under which what is to be corrected is read ``[B, T, H, K]``.
        v: values ``[B, T, HV, V]``.
        g: log decay of each step ``[B, T, HV]``.
        beta: write strength of each step ``[B, T, HV]``; 1 unless given.
        scale: factor on the scores, ``K ** -0.5`` unless given.
        initial_state: ``[N, HV, K, V]``.
        output_final_state: also return the last state.
        use_qk_l2norm_in_kernel: divide q, k and p by their norms.
        cu_seqlens: boundaries of packed sequences ``[N + 1]``; B must be 1.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        ``(o, final_state)``: o ``[B, T, HV, V]`` in the dtype of v; the state in float32, None unless asked for.

    Example:
        >>> q, k, v = (F.normalize(x, dim=-1) for x in torch.randn(3, 1, 64, 2, 32))
        >>> beta = torch.rand(1, 64, 2)
        >>> g = F.logsigmoid(torch.randn(1, 64, 2))
        >>> o, _ = fused_recurrent_comba(q, k, p=0.9 * k, v=v, g=g, beta=beta)
        >>> o.shape
        torch.Size([1, 64, 2, 32])
    """
    others = {"p": (p, "B T H K"), "g": (g, "B T HV"), "beta": (beta, "B T HV?")}
    scale = check_heads(q, k, v, others, scale, initial_state, cu_seqlens, grouped=True)
    chosen = choose_backend(q, backend)
    if use_qk_l2norm_in_kernel:
        q, k, p = unit(q), unit(k), unit(p)
    if chosen == "reference":
        return comba_reference(
            q,
            k,
            v,
            p=p,
            g=g,
            beta=beta,
            scale=scale,
            initial_state=initial_state,
            output_final_state=output_final_state,
            cu_seqlens=cu_seqlens,
        )
    return run_recurrent_delta_rule(
        q, k, v, beta, initial_state, cu_seqlens, scale, output_final_state, False, chosen, g=g, p=p
    )
