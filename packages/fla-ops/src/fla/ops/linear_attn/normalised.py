"""The engine with a normaliser: linear attention divided by the sum of its weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from fla.ops._arguments import sum_dtype
from fla.ops.gla.recurrent import run_recurrent_gla
from fla.ops.simple_gla.chunk import run_chunk_simple_gla
from fla.utils._validation import bind_shapes, check_floating, check_same_device, count_sequences

#: S ``[N, H, K, V]``; with the normaliser ``(S, z)``, z ``[N, 1, H, K]``.
LinearState = torch.Tensor | tuple[torch.Tensor, torch.Tensor]

#: Rows of values with their normaliser are a multiple of this many channels wide, so that loads stay aligned.
ALIGNMENT = 8

#: Where a function has no form of its own for decoding, up to so many steps are taken one after the other.
RECURRENT_STEPS = 8


def check_linear_state(
    initial_state: LinearState | None,
    normalize: bool,
    q: torch.Tensor,
    v: torch.Tensor,
    key_dim: int,
    cu_seqlens: torch.Tensor | None,
) -> None:
    """Check the initial state against queries ``[B, T, H, ...]`` and values ``[B, T, H, V]`` that have been checked.

    Raises:
        TypeError: not a tensor, or not a pair of tensors where there is a normaliser.
        ValueError: S without z where there is a normaliser, or a shape or device that does not fit.
    """
    if initial_state is None:
        return
    sequences = count_sequences(cu_seqlens, q.shape[0])
    known = {"N": sequences, "1": 1, "H": v.shape[2], "K": key_dim, "V": v.shape[3]}
    if not normalize:
        if not isinstance(initial_state, torch.Tensor):
            raise TypeError(f"initial_state: expected a tensor S, got {type(initial_state).__name__}")
        named = {"initial_state": initial_state}
        bind_shapes({"initial_state": (initial_state, "N H K V")}, known)
    else:
        if isinstance(initial_state, torch.Tensor):
            raise ValueError(
                "initial_state: the normaliser needs the sum of the keys as well, expected (S, z), "
                f"got S alone {list(initial_state.shape)}"
            )
        if not isinstance(initial_state, (tuple, list)) or len(initial_state) != 2:
            raise TypeError(f"initial_state: expected a pair of tensors (S, z), got {type(initial_state).__name__}")
        state, z = initial_state
        named = {"initial_state[0]": state, "initial_state[1]": z}
        bind_shapes({"initial_state[0]": (state, "N H K V"), "initial_state[1]": (z, "N 1 H K")}, known)
    check_floating(named)
    check_same_device({"q": q, **named})


def run_linear_attn(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    eps: float | None,
    initial_state: LinearState | None,
    output_final_state: bool,
    cu_seqlens: torch.Tensor | None,
    backend: str,
    *,
    recurrent: bool = False,
    reverse: bool = False,
) -> tuple[torch.Tensor, LinearState | None]:
    """Linear attention on checked arguments, where eps is given divided by ``scale * q . z + eps``."""
    if eps is None:
        assert initial_state is None or isinstance(initial_state, torch.Tensor)
        return _run(q, k, v, initial_state, cu_seqlens, scale, output_final_state, recurrent, reverse, backend)
    assert not isinstance(initial_state, torch.Tensor)
    o, total, final_state = sums_and_totals(
        q, k, v, scale, initial_state, output_final_state, cu_seqlens, backend, recurrent=recurrent, reverse=reverse
    )
    # In the dtype of sums, because float16 would make eps zero.
    return (o / (total.to(sum_dtype(o)) + eps)).to(v.dtype), final_state


def sums_and_totals(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    initial_state: tuple[torch.Tensor, torch.Tensor] | None,
    output_final_state: bool,
    cu_seqlens: torch.Tensor | None,
    backend: str,
    *,
    recurrent: bool = False,
    reverse: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, torch.Tensor] | None]:
    """The weighted sums of the values ``[B, T, H, V]``, those of ones ``[B, T, H, 1]``, and the final ``(S, z)``.

    The ones are further channels of the values, so z is a part of the engine's state, and q and k are read once for
    both.
    """
    dim = v.shape[-1]
    ones = ALIGNMENT - dim % ALIGNMENT
    start = None
    if initial_state is not None:
        state, z = initial_state
        start = torch.cat([state, z.permute(0, 2, 3, 1).expand(-1, -1, -1, ones)], -1)
    values = F.pad(v, (0, ones), value=1.0)
    o, end = _run(q, k, values, start, cu_seqlens, scale, output_final_state, recurrent, reverse, backend)
    final_state = None if end is None else (end[..., :dim], end[..., dim : dim + 1].permute(0, 3, 1, 2))
    return o[..., :dim], o[..., dim : dim + 1], final_state


def _run(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    output_final_state: bool,
    recurrent: bool,
    reverse: bool,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    if recurrent:
        return run_recurrent_gla(q, k, v, initial_state, cu_seqlens, scale, output_final_state, reverse, False, backend)
    return run_chunk_simple_gla(
        q, k, v, None, None, initial_state, cu_seqlens, scale, output_final_state, False, backend
    )
