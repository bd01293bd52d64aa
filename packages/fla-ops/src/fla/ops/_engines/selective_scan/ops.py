"""Host side of the selective scan: the registered ops, what is saved for the backward pass, and which backend runs.

Here and below tensors over time are ``[B, T, D]``, B and C are ``[B, T, G, N]``, and the factor D is called skip.
"""

from __future__ import annotations

import torch

from fla.ops._engines.selective_scan.algorithm import selective_scan_bwd_torch, selective_scan_fwd_torch
from fla.ops._engines.selective_scan.operands import Operands, new_states
from fla.ops._shared.arguments import sum_dtype
from fla.ops._shared.autograd import state_function
from fla.utils.registration import fake_gradients, register_op
from fla.utils.validation import count_sequences

MaybeTensor = torch.Tensor | None


def _state_like(u: torch.Tensor, A: torch.Tensor, cu_seqlens: MaybeTensor) -> torch.Tensor:
    return u.new_empty((count_sequences(cu_seqlens, u.shape[0]), *A.shape), dtype=sum_dtype(u))


def _fwd(
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    skip: MaybeTensor,
    z: MaybeTensor,
    bias: MaybeTensor,
    initial_state: MaybeTensor,
    cu_seqlens: MaybeTensor,
    softplus: bool,
    backend: str,
    save_states: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    operands = Operands(u, delta, A, B, C, skip, z, bias)
    if backend == "torch":
        return selective_scan_fwd_torch(operands, initial_state, cu_seqlens, softplus, save_states)
    from fla.ops._engines.selective_scan.launch import selective_scan_fwd_triton

    return selective_scan_fwd_triton(operands, initial_state, cu_seqlens, softplus, save_states)


def _fwd_fake(
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    skip: MaybeTensor,
    z: MaybeTensor,
    bias: MaybeTensor,
    cu_seqlens: MaybeTensor,
    backend: str,
    save_states: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    states = u.new_empty(0)
    if save_states:
        states = new_states(Operands(u, delta, A, B, C, skip, z, bias), cu_seqlens, backend)
    return u.new_empty(u.shape), _state_like(u, A, cu_seqlens), states


def _bwd(
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    skip: MaybeTensor,
    z: MaybeTensor,
    bias: MaybeTensor,
    initial_state: MaybeTensor,
    states: torch.Tensor,
    dy: torch.Tensor,
    dlast_state: MaybeTensor,
    cu_seqlens: MaybeTensor,
    softplus: bool,
    backend: str,
) -> list[torch.Tensor]:
    operands = Operands(u, delta, A, B, C, skip, z, bias)
    if backend == "torch":
        return [*selective_scan_bwd_torch(operands, states, dy, dlast_state, cu_seqlens, softplus)]
    from fla.ops._engines.selective_scan.launch import selective_scan_bwd_triton

    return [*selective_scan_bwd_triton(operands, states, dy, dlast_state, cu_seqlens, softplus)]


selective_scan_fwd = register_op("selective_scan_fwd", _fwd, _fwd_fake)
selective_scan_bwd = register_op("selective_scan_bwd", _bwd, fake_gradients(_bwd, _state_like))
_selective_scan = state_function(selective_scan_fwd, selective_scan_bwd, tells=True)


def run_selective_scan(
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    skip: MaybeTensor,
    z: MaybeTensor,
    bias: MaybeTensor,
    initial_state: MaybeTensor,
    cu_seqlens: MaybeTensor,
    softplus: bool,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """:func:`fla.ops.mamba.selective_scan` on checked arguments, with channels last."""
    return _selective_scan((softplus, backend), cu_seqlens, initial_state, u, delta, A, B, C, skip, z, bias)
