"""The functional form of the rotary position embedding."""

from __future__ import annotations

import torch

from fla.modules.rotary.ops import run_rotary
from fla.modules.rotary.positions import Tables
from fla.modules.rotary.reference import rotary_embedding_ref
from fla.utils.backends import choose_backend
from fla.utils.validation import (
    bind_shapes,
    check_cu_seqlens,
    check_floating,
    check_not_empty,
    check_same_device,
    count_sequences,
    remembered,
)
from fla.utils.varlen import boundaries


def rotary_embedding(
    x: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    interleaved: bool = False,
    inplace: bool = False,
    seqlen_offsets: int | torch.Tensor = 0,
    cu_seqlens: torch.Tensor | None = None,
    backend: str | None = None,
) -> torch.Tensor:
    r"""Rotate pairs of channels by an angle that grows with the position (arXiv 2104.09864).

    .. math:: (y_1, y_2) = (x_1 \cos_p - x_2 \sin_p,\; x_2 \cos_p + x_1 \sin_p)

    with p the position of the step in its sequence. Computed in float32 (float64 for float64 inputs).
    Differentiable once in x; no gradient reaches cos and sin.

    Args:
        x: ``[B, T, H, D]``; float32, bfloat16, float16, or float64 on the torch backend.
        cos: ``[P, R / 2]`` with ``R <= D`` and a row for every position; any floating dtype. Channels past R pass
            through.
        sin: likewise.
        interleaved: pairs are channels (0, 1), (2, 3), ...; else the first half of R is paired with the second.
        inplace: write the result into x as well, and return x.
        seqlen_offsets: position of the first step, one for all or int32 or int64 ``[N]``, one per sequence.
        cu_seqlens: boundaries of packed sequences ``[N + 1]``, int32 or int64, from 0 to T; B must be 1. Positions
            start again in each.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        y in the shape and dtype of x. On a GPU, positions past the tables, which only the device knows of where
        offsets are a tensor, give NaN.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: a shape or device that does not fit, tables that are too short, or a backend that cannot run here.
    """
    y, _ = rotate(x, None, Tables(cos, sin), interleaved, seqlen_offsets, cu_seqlens, backend, name="x")
    return x.copy_(y) if inplace else y


def rotate(
    q: torch.Tensor,
    k: torch.Tensor | None,
    tables: Tables,
    interleaved: bool,
    seqlen_offsets: int | torch.Tensor,
    cu_seqlens: torch.Tensor | None,
    backend: str | None = None,
    name: str = "q",
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """:func:`rotary_embedding` of q ``[B, T, H, D]`` and k ``[B, T, HK, D]`` or None, in one launch on a GPU."""
    offset, offsets = _check(q, k, tables, seqlen_offsets, cu_seqlens, name)
    if choose_backend(q, backend) == "triton":
        return run_rotary(q, k, tables, interleaved, offset, offsets, cu_seqlens)
    if cu_seqlens is not None and not torch.compiler.is_compiling():
        boundaries(cu_seqlens, q.shape[1])
    y = rotary_embedding_ref(q, tables.cos, tables.sin, interleaved, offset, offsets, cu_seqlens)
    if k is None:
        return y, None
    return y, rotary_embedding_ref(k, *tables.of_keys, interleaved, offset, offsets, cu_seqlens)


def _check(
    q: torch.Tensor,
    k: torch.Tensor | None,
    tables: Tables,
    seqlen_offsets: int | torch.Tensor,
    cu_seqlens: torch.Tensor | None,
    name: str,
) -> tuple[int, torch.Tensor | None]:
    """Validate, and split the offsets into the one for all and those per sequence."""
    offset, offsets = (0, seqlen_offsets) if isinstance(seqlen_offsets, torch.Tensor) else (seqlen_offsets, None)
    _check_forms(q, k, tables.cos, tables.sin, offsets, cu_seqlens, name)
    if offset < 0:
        raise ValueError(f"seqlen_offsets: expected 0 or more, got {offset}")
    needed, length = offset + q.shape[1], tables.cos.shape[0]
    if offsets is None and cu_seqlens is None and needed > length:
        raise ValueError(
            f"cos: expected a row for each of {needed} positions (offset {offset} + T={q.shape[1]}), "
            f"got {list(tables.cos.shape)}"
        )
    return offset, offsets


@remembered
def _check_forms(
    q: torch.Tensor,
    k: torch.Tensor | None,
    cos: torch.Tensor,
    sin: torch.Tensor,
    offsets: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    name: str,
) -> None:
    sizes = bind_shapes({name: (q, "B T H D"), "k": (k, "B T HK D?"), "cos": (cos, "P R/2"), "sin": (sin, "P R/2")})
    check_not_empty(sizes)
    check_floating({name: q, "k": k, "cos": cos, "sin": sin})
    check_cu_seqlens(cu_seqlens, sizes["B"])
    if 2 * sizes["R/2"] > sizes["D"]:
        raise ValueError(f"cos: expected at most D/2={sizes['D'] // 2} columns, got {list(cos.shape)}")
    check_same_device({name: q, "k": k, "cos": cos, "sin": sin, "seqlen_offsets": offsets, "cu_seqlens": cu_seqlens})
    if offsets is not None:
        _check_offsets(offsets, count_sequences(cu_seqlens, sizes["B"]))


def _check_offsets(offsets: torch.Tensor, sequences: int) -> None:
    if offsets.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"seqlen_offsets: expected int, int32 or int64, got {offsets.dtype}")
    if offsets.shape != (sequences,):
        raise ValueError(f"seqlen_offsets: expected shape [N] with N={sequences}, got {list(offsets.shape)}")
