"""Host side of the recurrent form of the generalized delta rule: the registered ops, gradients, and which backend."""

from __future__ import annotations

import torch

from fla.ops._engines.low_rank.ops import chunk_dplr_delta_rule_bwd, chunk_dplr_delta_rule_fwd
from fla.ops._engines.low_rank_steps.algorithm import recurrent_dplr_delta_rule_fwd_torch
from fla.ops._shared.arguments import flip_time, output_and_state_like
from fla.ops._shared.autograd import state_function
from fla.utils.registration import register_op

#: From this many steps on, PyTorch is faster in chunks.
LONG = 16


def _fwd(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    gk: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    if backend == "triton":
        from fla.ops._engines.low_rank_steps.launch import recurrent_dplr_delta_rule_fwd_triton

        return recurrent_dplr_delta_rule_fwd_triton(q, k, v, a, b, gk, initial_state, cu_seqlens, scale)
    if q.shape[1] < LONG:
        return recurrent_dplr_delta_rule_fwd_torch(q, k, v, a, b, gk, initial_state, cu_seqlens, scale)
    o, final_state = chunk_dplr_delta_rule_fwd(q, k, v, a, b, gk, initial_state, cu_seqlens, scale, backend)
    return o, final_state


fused_recurrent_dplr_delta_rule_fwd = register_op("fused_recurrent_dplr_delta_rule_fwd", _fwd, output_and_state_like)
#: The chunked form has the same gradient, and is faster.
_recurrent_dplr_delta_rule = state_function(fused_recurrent_dplr_delta_rule_fwd, chunk_dplr_delta_rule_bwd)


def run_recurrent_dplr_delta_rule(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    gk: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    output_final_state: bool,
    reverse: bool,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """:func:`fla.ops.generalized_delta_rule.fused_recurrent_dplr_delta_rule` on checked arguments."""
    packed = cu_seqlens is not None
    operands: list[torch.Tensor | None] = [q, k, v, a, b, gk]
    if reverse:
        operands, cu_seqlens = flip_time(operands, cu_seqlens)
        initial_state = initial_state.flip(0) if packed and initial_state is not None else initial_state
    o, final_state = _recurrent_dplr_delta_rule((scale, backend), cu_seqlens, initial_state, *operands)
    if reverse:
        o = o.flip(1)
        final_state = final_state.flip(0) if packed else final_state
    return o, final_state if output_final_state else None
