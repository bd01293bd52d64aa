"""The registered ops of the engine with weights of writes and values that skip the state: on Triton alone."""

from __future__ import annotations

import torch

from fla.ops._shared.arguments import output_and_state_like, state_like
from fla.ops._shared.autograd import state_function
from fla.utils.registration import fake_gradients, register_op

_LAUNCH = "fla.ops._engines.scalar_decay.launch"


def _fwd(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    w: torch.Tensor,
    skip: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return o and the final state."""
    raise NotImplementedError


def _bwd(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    w: torch.Tensor,
    skip: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    do: torch.Tensor,
    dfinal_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
) -> list[torch.Tensor]:
    """Return the gradients of the operands and of the initial state."""
    raise NotImplementedError


chunk_ssd_fwd = register_op("chunk_ssd_fwd", _fwd, output_and_state_like, launch=f"{_LAUNCH}:weighted_fwd_triton")
chunk_ssd_bwd = register_op(
    "chunk_ssd_bwd", _bwd, fake_gradients(_bwd, state_like), launch=f"{_LAUNCH}:weighted_bwd_triton"
)
_chunk_ssd = state_function(chunk_ssd_fwd, chunk_ssd_bwd)


def run_chunk_ssd(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    w: torch.Tensor,
    skip: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """``S_t = e^g_t S_{t-1} + w_t k_t v_t^T``, ``o_t = S_t^T q_t + skip v_t``; checked arguments, states K first."""
    return _chunk_ssd((1.0,), cu_seqlens, initial_state, q, k, v, g, w, skip)
