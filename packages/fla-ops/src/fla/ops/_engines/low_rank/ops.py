"""Host side of the chunked generalized delta rule: the registered ops, and which backend runs."""

from __future__ import annotations

import torch

from fla.ops._engines.low_rank.algorithm import chunk_dplr_delta_rule_bwd_torch, chunk_dplr_delta_rule_fwd_torch
from fla.ops._shared.arguments import output_and_state_like, state_like
from fla.ops._shared.autograd import state_function
from fla.utils.registration import fake_gradients, register_op

_LAUNCH = "fla.ops._engines.low_rank.launch"


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
    """Return o and the final state."""
    raise NotImplementedError


def _bwd(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    gk: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    do: torch.Tensor,
    dfinal_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    backend: str,
) -> list[torch.Tensor]:
    """Return the gradients of the operands and of the initial state."""
    raise NotImplementedError


chunk_dplr_delta_rule_fwd = register_op(
    "chunk_dplr_delta_rule_fwd",
    _fwd,
    output_and_state_like,
    algorithm=chunk_dplr_delta_rule_fwd_torch,
    launch=f"{_LAUNCH}:chunk_dplr_delta_rule_fwd_triton",
)
chunk_dplr_delta_rule_bwd = register_op(
    "chunk_dplr_delta_rule_bwd",
    _bwd,
    fake_gradients(_bwd, state_like),
    algorithm=chunk_dplr_delta_rule_bwd_torch,
    launch=f"{_LAUNCH}:chunk_dplr_delta_rule_bwd_triton",
)
_chunk_dplr_delta_rule = state_function(chunk_dplr_delta_rule_fwd, chunk_dplr_delta_rule_bwd)


def run_chunk_dplr_delta_rule(
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
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """:func:`fla.ops.generalized_delta_rule.chunk_dplr_delta_rule` on checked arguments."""
    o, final_state = _chunk_dplr_delta_rule((scale, backend), cu_seqlens, initial_state, q, k, v, a, b, gk)
    return o, final_state if output_final_state else None
