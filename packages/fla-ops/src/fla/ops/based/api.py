"""The public functions of Based: what they compute and accept."""

from __future__ import annotations

import torch

from fla.ops._engines.normalised_reads.ops import RECURRENT_STEPS, LinearState, check_linear_state, run_linear_attn
from fla.ops._engines.second_order.features import taylor, taylor_width
from fla.ops._engines.second_order.ops import run_second_order
from fla.ops._shared.arguments import check_heads
from fla.ops.based.reference import based_reference
from fla.utils.backends import choose_backend

EPS = 1e-6


def parallel_based(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float | None = None,
    use_norm: bool = True,
    initial_state: LinearState | None = None,
    output_final_state: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    backend: str | None = None,
) -> torch.Tensor | tuple[torch.Tensor, LinearState | None]:
    r"""Attention by the second-order expansion of the exponential, in linear time (Based, arXiv 2402.18668).

    .. math:: w_{ij} = 1 + s_{ij} + s_{ij}^2 / 2, \qquad s_{ij} = scale \cdot q_i \cdot k_j, \qquad
        o_i = \sum_{j \le i} w_{ij} v_j \Big/ \Big(\sum_{j \le i} w_{ij} + 10^{-6}\Big)

    It is linear attention over features :math:`\phi` with :math:`\phi(x) \cdot \phi(y) = 1 + x \cdot y +
    (x \cdot y)^2 / 2`, of which there are F, about K squared over 2: 160 for K = 16. They are in the dtype of q;
    states and sums are accumulated in float32 (float64 for float64 inputs), and with ``use_norm`` they are divided
    before they are rounded. On the Triton backend features are never stored, and within a chunk weights are taken from
    scores. Without ``use_norm``, outputs in float16 must stay below 65504. Differentiable once in every floating
    argument.

    Args:
        q: queries ``[B, T, H, K]``; float32, bfloat16, float16, or float64 on the torch backend.
        k: keys ``[B, T, H, K]``.
        v: values ``[B, T, H, V]``.
        scale: factor on the scores, ``K ** -0.5`` unless given.
        use_norm: divide by the sum of the weights.
        initial_state: state before the first step ``(S, z)``, S ``[N, H, F, V]`` the sum of :math:`\phi(k_j)
            v_j^\top` and z ``[N, 1, H, F]`` that of :math:`\phi(k_j)`; S alone without ``use_norm``. N is B, or the
            number of packed sequences.
        output_final_state: also return the state after the last step.
        cu_seqlens: boundaries of packed sequences ``[N + 1]``, int32 or int64, from 0 to T; B must be 1.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        o ``[B, T, H, V]`` in the dtype of v; ``(o, final_state)`` where the state is asked for, in float32.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: an argument of the wrong shape, on another device, S without z where ``use_norm``, or a backend
            that cannot run here.

    Example:
        >>> q, k = torch.randn(2, 1, 64, 2, 16)
        >>> v = torch.randn(1, 64, 2, 32)
        >>> parallel_based(q, k, v).shape
        torch.Size([1, 64, 2, 32])
    """
    scale = check_heads(q, k, v, {}, scale, None, cu_seqlens)
    width = taylor_width(q.shape[-1])
    check_linear_state(initial_state, use_norm, q, v, width, cu_seqlens)
    chosen = choose_backend(q, backend)
    if chosen == "reference":
        return based_reference(
            q,
            k,
            v,
            scale=scale,
            use_norm=use_norm,
            initial_state=initial_state,
            output_final_state=output_final_state,
            cu_seqlens=cu_seqlens,
        )
    eps = EPS if use_norm else None
    final_state: LinearState | None
    if chosen == "triton" and q.shape[1] > RECURRENT_STEPS:
        # float16 does not hold what small sums divide.
        q_, k_, v_ = (x.float() if use_norm and x.dtype == torch.float16 else x for x in (q, k, v))
        o, _, end = run_second_order(q_, k_, v_, scale, eps, initial_state, cu_seqlens, taylor=True)
        o, final_state = o.to(v.dtype), end if use_norm else end[0]
    else:
        o, final_state = run_linear_attn(
            taylor(q * scale),
            taylor(k),
            v,
            1.0,
            eps,
            initial_state,
            output_final_state,
            cu_seqlens,
            chosen,
            recurrent=q.shape[1] <= RECURRENT_STEPS,
        )
    return (o, final_state) if output_final_state else o


#: The peer's name for a form in chunks; here both are.
fused_chunk_based = parallel_based
