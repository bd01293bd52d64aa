"""The weights of the slots: the pass over the keys, and the softmax that it ends in, as one function."""

from __future__ import annotations

import torch

from fla.ops._engines.channel_decay.value_decay_ops import value_decay_bwd, value_decay_fwd
from fla.ops._shared.arguments import sum_dtype
from fla.ops._shared.autograd import state_function
from fla.utils.registration import register_op


def _softmax(scores: torch.Tensor, dtype: torch.dtype, backend: str) -> torch.Tensor:
    if backend == "torch":
        return scores.softmax(-1).to(dtype)
    from fla.ops._engines.slots.launch import slot_softmax_triton

    return slot_softmax_triton(scores, dtype)


def _softmax_fake(scores: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return scores.new_empty(scores.shape, dtype=dtype)


def _softmax_bwd(weights: torch.Tensor, dweights: torch.Tensor, backend: str) -> torch.Tensor:
    if backend == "torch":
        wide = sum_dtype(weights)
        p, dp = weights.to(wide), dweights.to(wide)
        return (p * (dp - (p * dp).sum(-1, keepdim=True))).to(weights.dtype)
    from fla.ops._engines.slots.launch import slot_softmax_bwd_triton

    return slot_softmax_bwd_triton(weights, dweights)


def _softmax_bwd_fake(weights: torch.Tensor) -> torch.Tensor:
    return weights.new_empty(weights.shape)


slot_softmax = register_op("slot_softmax_fwd", _softmax, _softmax_fake)
slot_softmax_bwd = register_op("slot_softmax_bwd", _softmax_bwd, _softmax_bwd_fake)


def slot_weights_fwd(
    q: torch.Tensor,
    k: torch.Tensor,
    s: torch.Tensor,
    g: torch.Tensor,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    scores, final_state = value_decay_fwd(q, k, s, g, initial_state, cu_seqlens, scale, backend)
    weights = slot_softmax(scores, q.dtype, backend)
    return weights, final_state, weights


def slot_weights_bwd(
    q: torch.Tensor,
    k: torch.Tensor,
    s: torch.Tensor,
    g: torch.Tensor,
    initial_state: torch.Tensor | None,
    weights: torch.Tensor,
    dweights: torch.Tensor,
    dfinal_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    backend: str,
) -> tuple[torch.Tensor, ...]:
    # In the dtype in which the pass over the keys multiplies it, so that no pass over memory has to convert it.
    dscores = slot_softmax_bwd(weights, dweights, backend)
    gradients: tuple[torch.Tensor, ...] = value_decay_bwd(
        q, k, s, g, initial_state, dscores, dfinal_state, cu_seqlens, scale, backend
    )
    return gradients


_slot_weights = state_function(slot_weights_fwd, slot_weights_bwd)


def run_slot_weights(
    q: torch.Tensor,
    k: torch.Tensor,
    s: torch.Tensor,
    g: torch.Tensor,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    r""":math:`\mathrm{softmax}(scale \cdot {H^k_t}^\top q_t)` of checked arguments, and the last state.

    Weights ``[B, T, H, M]`` are in the dtype of q, made of scores in that of sums; states are ``[N, H, K, M]``.
    """
    if initial_state is not None:
        initial_state = initial_state.transpose(-1, -2)
    weights, final_state = _slot_weights((scale, backend), cu_seqlens, initial_state, q, k, s, g)
    return weights, final_state.transpose(-1, -2).contiguous()
