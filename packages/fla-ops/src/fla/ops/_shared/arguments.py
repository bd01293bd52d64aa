"""Checks of queries, keys, values and states, and the layouts and dtypes of states."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F

from fla.utils.validation import (
    bind_shapes,
    check_cu_seqlens,
    check_floating,
    check_not_empty,
    check_same_device,
    check_same_dtype,
    count_sequences,
    remembered,
)


@remembered
def check_heads(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    others: Mapping[str, tuple[torch.Tensor | None, str]],
    scale: float | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    *,
    state_v_first: bool = False,
    grouped: bool = False,
    query: str = "q",
) -> float:
    """Validate queries, keys, values and what goes with them, and return the scale.

    Args:
        q: ``[B, T, H, K]``.
        k: ``[B, T, H, K]``.
        v: ``[B, T, H, V]``; ``[B, T, HV, V]`` with HV a multiple of H where ``grouped``.
        others: argument name -> ``(tensor, letters)`` of gates and the like, any floating dtype.
        scale: ``K ** -0.5`` unless given.
        initial_state: ``[N, HV, K, V]``, or ``[N, HV, V, K]`` where ``state_v_first``.
        cu_seqlens: boundaries of packed sequences.
        state_v_first: the layout of states.
        grouped: several value heads may share a query head.
        query: what the caller calls q.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: an argument of the wrong shape or on another device.
    """
    heads = "HV" if grouped else "H"
    operands = {query: (q, "B T H K"), "k": (k, "B T H K"), "v": (v, f"B T {heads} V")}
    sizes = bind_shapes({**operands, **others})
    check_not_empty(sizes)
    if sizes[heads] % sizes["H"]:
        raise ValueError(f"v: expected HV a multiple of the H={sizes['H']} heads of {query}, got {list(v.shape)}")
    tensors = {name: tensor for name, (tensor, _) in others.items()}
    check_same_dtype({query: q, "k": k, "v": v})
    check_floating({**tensors, "initial_state": initial_state})
    check_cu_seqlens(cu_seqlens, sizes["B"])
    state_letters = f"N {heads} V K?" if state_v_first else f"N {heads} K V?"
    sequences = {"N": count_sequences(cu_seqlens, sizes["B"])}
    bind_shapes({"initial_state": (initial_state, state_letters)}, known={**sizes, **sequences})
    check_same_device({query: q, "k": k, "v": v, **tensors, "initial_state": initial_state, "cu_seqlens": cu_seqlens})
    return sizes["K"] ** -0.5 if scale is None else float(scale)


def state_like(
    q: torch.Tensor, v: torch.Tensor, cu_seqlens: torch.Tensor | None, state_v_first: bool = False
) -> torch.Tensor:
    """An empty state of every sequence, in the dtype that sums are taken in."""
    dims = (v.shape[3], q.shape[3]) if state_v_first else (q.shape[3], v.shape[3])
    sequences = count_sequences(cu_seqlens, q.shape[0])
    return q.new_empty((sequences, v.shape[2], *dims), dtype=sum_dtype(q))


def sum_dtype(x: torch.Tensor) -> torch.dtype:
    """The dtype that sums over ``x`` are taken in: float64 for float64, else float32."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def keys_first(state: torch.Tensor | None, state_v_first: bool) -> torch.Tensor | None:
    """A given state ``[N, H, K, V]``, which is ``[N, H, V, K]`` where ``state_v_first``."""
    return state.transpose(-1, -2) if state is not None and state_v_first else state


def as_asked(state: torch.Tensor, state_v_first: bool) -> torch.Tensor:
    """A state ``[N, H, K, V]`` for the caller, contiguous: ``[N, H, V, K]`` where ``state_v_first``."""
    return state.transpose(-1, -2).contiguous() if state_v_first else state


def output_and_state_like(
    q: torch.Tensor, v: torch.Tensor, cu_seqlens: torch.Tensor | None, state_v_first: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """An empty output like v, and :func:`state_like`: the fake of most forward passes."""
    return v.new_empty(v.shape), state_like(q, v, cu_seqlens, state_v_first)


def widened(x: torch.Tensor, width: int) -> torch.Tensor:
    """``x [..., D]`` with zeros up to ``width`` channels; x itself where it has them, which ``F.pad`` would copy."""
    return x if x.shape[-1] == width else F.pad(x, (0, width - x.shape[-1]))


def ungroup(gradient: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The gradient of ``like`` ``[B, T, H, K]`` from those ``[B, T, HV, K]`` of the value heads that share it."""
    if gradient.shape[2] != like.shape[2]:
        gradient = gradient.unflatten(2, (like.shape[2], -1)).sum(3)
    return gradient.to(like.dtype)


def flip_time(
    tensors: Iterable[torch.Tensor | None], cu_seqlens: torch.Tensor | None
) -> tuple[list[torch.Tensor | None], torch.Tensor | None]:
    """Tensors ``[B, T, ...]`` and the boundaries of packed sequences with time turned round.

    The order of packed sequences turns round as well, and with it that of their states.
    """
    flipped = [None if x is None else x.flip(1) for x in tensors]
    return flipped, None if cu_seqlens is None else cu_seqlens[-1] - cu_seqlens.flip(0)
