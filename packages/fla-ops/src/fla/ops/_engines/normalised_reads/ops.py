"""The engine with a normaliser: linear attention divided by the sum of its weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from fla.ops._engines.decay_steps.ops import WIDEST, fused_recurrent_gla_fwd, run_recurrent_gla
from fla.ops._engines.scalar_decay.ops import chunk_simple_gla_bwd, chunk_simple_gla_fwd, run_chunk_simple_gla
from fla.ops._shared.arguments import flip_time, sum_dtype
from fla.ops._shared.autograd import state_function
from fla.utils.registration import fake_gradients, register_op
from fla.utils.validation import bind_shapes, check_floating, check_same_device, count_sequences

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
    operands: list[torch.Tensor | None] = [q, k, v]
    start, turned = _with_sum(initial_state, v), reverse and cu_seqlens is not None
    if reverse:
        operands, cu_seqlens = flip_time(operands, cu_seqlens)
        start = start.flip(0) if turned and start is not None else start
    o, end = _divided((scale, eps, recurrent, backend), cu_seqlens, start, *operands)
    o, end = o.flip(1) if reverse else o, end.flip(0) if turned else end
    return o, _without_ones(end, v) if output_final_state else None


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
) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, torch.Tensor] | None]:
    """The weighted sums of the values ``[B, T, H, V]``, those of ones ``[B, T, H, 1]``, and the final ``(S, z)``."""
    dim = v.shape[-1]
    start = _with_sum(initial_state, v)
    o, end = _run(q, k, _with_ones(v), start, cu_seqlens, scale, output_final_state, recurrent, False, backend)
    return o[..., :dim], o[..., dim : dim + 1], None if end is None else _without_ones(end, v)


def _ones(v: torch.Tensor) -> int:
    """How many channels of ones follow those of v, at least one."""
    return ALIGNMENT - v.shape[-1] % ALIGNMENT


def _with_ones(v: torch.Tensor) -> torch.Tensor:
    """The values with channels of ones, whose states are z: so q and k are read once for both sums."""
    return F.pad(v, (0, _ones(v)), value=1.0)


def _with_sum(initial_state: tuple[torch.Tensor, torch.Tensor] | None, v: torch.Tensor) -> torch.Tensor | None:
    """S and z as the state of values with ones."""
    if initial_state is None:
        return None
    state, z = initial_state
    return torch.cat([state, z.permute(0, 2, 3, 1).expand(-1, -1, -1, _ones(v))], -1)


def _without_ones(state: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """S and z from the state of values with ones, each with memory of its own: they may be updated in place."""
    dim = v.shape[-1]
    parts = state[..., :dim], state[..., dim : dim + 1].permute(0, 3, 1, 2)
    sums, z = (part.clone(memory_format=torch.contiguous_format) for part in parts)
    return sums, z


def _divided_fwd(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    eps: float,
    recurrent: bool,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Outputs in the dtype of v, final states of values with ones, and the sums for the backward pass."""
    dtype = sum_dtype(v)
    values = _with_ones(v.to(dtype))
    if recurrent and q.shape[-1] <= WIDEST:
        # Its kernel multiplies in the dtype of sums whatever it is given.
        gates = (None, None, None, None)
        sums, end = fused_recurrent_gla_fwd(q, k, values, *gates, initial_state, cu_seqlens, scale, False, backend)
    else:
        q, k = q.to(dtype), k.to(dtype)
        sums, end = chunk_simple_gla_fwd(q, k, values, None, None, initial_state, cu_seqlens, scale, backend)
    o, _ = _quotient(sums, v, eps)
    return o.to(v.dtype), end, sums


def _quotient(sums: torch.Tensor, v: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The sums divided, and by what."""
    dim = v.shape[-1]
    divisor = sums[..., dim : dim + 1] + eps
    return sums[..., :dim] / divisor, divisor


def _divided_bwd(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    initial_state: torch.Tensor | None,
    sums: torch.Tensor,
    do: torch.Tensor,
    dfinal_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    eps: float,
    recurrent: bool,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of q, k, v and the initial state.

    A weight gets ``do.(v - o) / divisor``. What v has in common with o cancels between the channels of the values and
    the one of ones, and what is left may be far smaller, so half precision would lose it.
    """
    dtype = sum_dtype(v)
    o, divisor = _quotient(sums, v, eps)
    dsums = do.to(dtype) / divisor
    dtotal = -(dsums * o).sum(-1, keepdim=True)
    dsums = F.pad(torch.cat([dsums, dtotal], -1), (0, _ones(v) - 1))
    q_, k_, values = q.to(dtype), k.to(dtype), _with_ones(v.to(dtype))
    dq, dk, dvalues, _, _, dstart = chunk_simple_gla_bwd(
        q_, k_, values, None, None, initial_state, dsums, dfinal_state, cu_seqlens, scale, backend
    )
    dv = dvalues[..., : v.shape[-1]].to(v.dtype).contiguous()
    return dq.to(q.dtype), dk.to(k.dtype), dv, dstart


def _fwd_fake(
    q: torch.Tensor, v: torch.Tensor, cu_seqlens: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    width, dtype = v.shape[-1] + _ones(v), sum_dtype(v)
    sums = v.new_empty(*v.shape[:-1], width, dtype=dtype)
    return v.new_empty(v.shape), _state_like(q, v, cu_seqlens), sums


def _state_like(q: torch.Tensor, v: torch.Tensor, cu_seqlens: torch.Tensor | None) -> torch.Tensor:
    shape = count_sequences(cu_seqlens, q.shape[0]), v.shape[2], q.shape[3], v.shape[3] + _ones(v)
    return q.new_empty(shape, dtype=sum_dtype(v))


#: Ops of their own, because PyTorch 2.11 loses gradients where it traces a function that casts what needs no cast.
normalised_reads_fwd = register_op("normalised_reads_fwd", _divided_fwd, _fwd_fake)
normalised_reads_bwd = register_op("normalised_reads_bwd", _divided_bwd, fake_gradients(_divided_bwd, _state_like))
_divided = state_function(normalised_reads_fwd, normalised_reads_bwd)


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
