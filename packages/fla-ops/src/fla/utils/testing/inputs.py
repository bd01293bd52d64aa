"""Inputs for tests: random tensors that are the same on every device, decays, packed lengths, odd memory layouts.

All draw on the CPU, in float64, from ``generator`` (PyTorch's own unless given), and convert then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise

import torch
import torch.nn.functional as F


def randn(
    *shape: int,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    generator: torch.Generator | None = None,
    requires_grad: bool = False,
) -> torch.Tensor:
    """Standard normal numbers, a leaf."""
    return _leaf(_draw(shape, generator), dtype, device, requires_grad)


def unit_vectors(
    *shape: int,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    generator: torch.Generator | None = None,
    requires_grad: bool = False,
) -> torch.Tensor:
    """Vectors of length 1 along the last dimension, in every direction alike; a leaf. For keys of delta rules."""
    return _leaf(F.normalize(_draw(shape, generator), dim=-1), dtype, device, requires_grad)


def log_decay(
    *shape: int,
    strength: float = 1.0,
    least: float | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    generator: torch.Generator | None = None,
    requires_grad: bool = False,
) -> torch.Tensor:
    """Natural-log decays, at most 0, as a gate makes them: ``strength * logsigmoid(standard normal)``; a leaf.

    Args:
        shape: of the result.
        strength: factor on all of them.
        least: one in eight is this instead, such as -30: stronger than float32's exponents can add up.
        dtype: of the result.
        device: of the result.
        generator: to draw from.
        requires_grad: of the result.
    """
    decay = strength * F.logsigmoid(_draw(shape, generator))
    if least is not None:
        decay[torch.rand(shape, generator=generator) < 1 / 8] = least
    return _leaf(decay, dtype, device, requires_grad)


def packed_lengths(total: int, count: int, generator: torch.Generator | None = None) -> list[int]:
    """The lengths of ``count`` sequences that make up ``total`` steps; some may be empty."""
    cuts = torch.randint(0, total + 1, (count - 1,), generator=generator).sort().values.tolist()
    return [end - start for start, end in pairwise([0, *cuts, total])]


def cu_seqlens(
    lengths: Sequence[int], device: torch.device | str = "cpu", dtype: torch.dtype = torch.int32
) -> torch.Tensor:
    """The boundaries ``[N + 1]`` of packed sequences."""
    return torch.tensor([0, *accumulate(lengths)], dtype=dtype, device=device)


def _as_permuted(x: torch.Tensor) -> torch.Tensor:
    """The dimensions lie in memory in the opposite order."""
    reverse = tuple(reversed(range(x.ndim)))
    return x.permute(reverse).contiguous().permute(reverse)


def _as_every_other(x: torch.Tensor) -> torch.Tensor:
    """There is a NaN after each element."""
    wide = torch.full((*x.shape, 2), float("nan"), dtype=x.dtype, device=x.device)
    wide[..., 0] = x
    return wide[..., 0]


def _as_slice(x: torch.Tensor) -> torch.Tensor:
    """A window of something larger, as from a split projection: rows have NaN on both sides and start unaligned."""
    wide = torch.full((*x.shape[:-1], x.shape[-1] + 2), float("nan"), dtype=x.dtype, device=x.device)
    wide[..., 1:-1] = x
    return wide[..., 1:-1]


#: Ways in which a tensor ``[B, T, ...]`` of floating dtype can lie in memory with the same values.
LAYOUTS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "permuted": _as_permuted,
    "every other": _as_every_other,
    "slice": _as_slice,
}


def non_contiguous(x: torch.Tensor, layout: str) -> torch.Tensor:
    """The same values as ``x`` in one of :data:`LAYOUTS`; a leaf that requires grad where ``x`` does."""
    return LAYOUTS[layout](x.detach()).requires_grad_(x.requires_grad)


def _draw(shape: Sequence[int], generator: torch.Generator | None) -> torch.Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _leaf(values: torch.Tensor, dtype: torch.dtype, device: torch.device | str, requires_grad: bool) -> torch.Tensor:
    return values.to(device=device, dtype=dtype).requires_grad_(requires_grad)
