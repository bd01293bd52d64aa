"""Host side of HGRN's recurrence: the registered ops, what is saved for the backward pass, and which backend runs."""

from __future__ import annotations

import torch

from fla.ops._engines.scan.algorithm import hgrn_bwd_torch, hgrn_fwd_torch
from fla.ops._shared.arguments import sum_dtype
from fla.ops._shared.autograd import state_function
from fla.utils.registration import fake_gradients, register_op
from fla.utils.tiles import tile_key
from fla.utils.validation import count_sequences
from fla.utils.varlen import max_chunks

_LAUNCH = "fla.ops._engines.scan.launch"


def _state_like(x: torch.Tensor, cu_seqlens: torch.Tensor | None) -> torch.Tensor:
    return x.new_empty((count_sequences(cu_seqlens, x.shape[0]), x.shape[2]), dtype=sum_dtype(x))


def _fwd(
    x: torch.Tensor,
    g: torch.Tensor,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    backend: str,
    save_states: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return o, the final state, and the state before each tile if they are saved."""
    raise NotImplementedError


def _fwd_fake(
    x: torch.Tensor, cu_seqlens: torch.Tensor | None, backend: str, save_states: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    states = x.new_empty(0)
    if save_states and backend == "triton":
        from fla.ops._engines.scan.tiles import SCAN_TILES

        batch, total, channels = x.shape
        sequences = count_sequences(cu_seqlens, batch)
        tiles = max_chunks(batch * total, sequences, SCAN_TILES.choose(tile_key(x, channels)).steps)
        states = x.new_empty((tiles, channels), dtype=torch.float32)
    return x.new_empty(x.shape), _state_like(x, cu_seqlens), states


def _bwd(
    x: torch.Tensor,
    g: torch.Tensor,
    initial_state: torch.Tensor | None,
    states: torch.Tensor,
    do: torch.Tensor,
    dfinal_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the gradients of x, g and the initial state."""
    raise NotImplementedError


hgrn_fwd = register_op("hgrn_fwd", _fwd, _fwd_fake, algorithm=hgrn_fwd_torch, launch=f"{_LAUNCH}:hgrn_fwd_triton")
hgrn_bwd = register_op(
    "hgrn_bwd", _bwd, fake_gradients(_bwd, _state_like), algorithm=hgrn_bwd_torch, launch=f"{_LAUNCH}:hgrn_bwd_triton"
)
_hgrn = state_function(hgrn_fwd, hgrn_bwd, tells=True)


def run_hgrn(
    x: torch.Tensor,
    g: torch.Tensor,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    output_final_state: bool,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """:func:`fla.ops.hgrn.chunk_hgrn` on checked arguments."""
    o, final_state = _hgrn((backend,), cu_seqlens, initial_state, x, g)
    return o, final_state if output_final_state else None
