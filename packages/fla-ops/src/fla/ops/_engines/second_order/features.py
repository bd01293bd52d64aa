"""Features whose dot products are polynomials of degree two of the dot products of what they are made from."""

from __future__ import annotations

import math
from typing import Any

import torch

from fla.ops._shared.arguments import sum_dtype, widened

#: Features are padded with zeros to a multiple of this many, so that loads stay aligned.
ALIGNMENT = 8


def half_square(x: torch.Tensor) -> torch.Tensor:
    r"""``[..., D]`` to ``[..., F]`` in the dtype of x, such that :math:`\phi(x) \cdot \phi(y) = (x \cdot y)^2 / 2`.

    F is :func:`half_square_width`: each pair of channels once.
    """
    return _HalfSquare.apply(x, False)  # type: ignore[no-untyped-call,no-any-return]


def taylor(x: torch.Tensor) -> torch.Tensor:
    r"""The exponential to second order, ``[..., D]`` to ``[..., F]`` in the dtype of x.

    .. math:: \phi(x) \cdot \phi(y) = 1 + x \cdot y + (x \cdot y)^2 / 2

    F is :func:`taylor_width`: one, each channel, and each pair of channels once.
    """
    return _HalfSquare.apply(torch.cat([torch.ones_like(x[..., :1]), x], -1), True)  # type: ignore[no-untyped-call,no-any-return]


def half_square_width(dim: int) -> int:
    """Features that :func:`half_square` makes of ``dim`` channels."""
    features = dim * (dim // 2 + 1)
    return features + -features % ALIGNMENT


def taylor_width(dim: int) -> int:
    """Features that :func:`taylor` makes of ``dim`` channels."""
    return half_square_width(dim + 1)


class _HalfSquare(torch.autograd.Function):
    """Row s of the features is x times x shifted by s round its end, up to half its length.

    So each pair of channels occurs once, without a table of pairs. Only the squares, in row 0, are to count one half;
    and where the number of channels is even, the last row holds every pair twice.

    ``is_one`` says that channel 0 is one; its square, one half too little, becomes one.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, is_one: bool) -> torch.Tensor:
        ctx.save_for_backward(x)
        features = _weigh(_shifted(x) * x.unsqueeze(-2))
        if is_one:
            features[..., 0, 0] = 1.0
        features = features.flatten(-2)
        return widened(features, features.shape[-1] + -features.shape[-1] % ALIGNMENT)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        (x,) = ctx.saved_tensors
        dim, wide = x.shape[-1], sum_dtype(x)
        rows = dim // 2 + 1
        grad = _weigh(grad[..., : rows * dim].unflatten(-1, (rows, dim)).clone())
        by_place = (grad * _shifted(x)).sum(-2, dtype=wide)
        row, place = torch.arange(rows, device=x.device)[:, None], torch.arange(dim, device=x.device)
        back = row * dim + (place - row) % dim
        by_shifted = (grad * x.unsqueeze(-2)).flatten(-2).index_select(-1, back.flatten())
        return (by_place + by_shifted.unflatten(-1, (rows, dim)).sum(-2, dtype=wide)).to(x.dtype), None


def _shifted(x: torch.Tensor) -> torch.Tensor:
    """A view ``[..., D // 2 + 1, D]`` whose row s is x from channel s on, and then from its start."""
    dim = x.shape[-1]
    return torch.cat([x, x[..., : dim // 2]], -1).unfold(-1, dim, 1)


def _weigh(rows: torch.Tensor) -> torch.Tensor:
    """Multiply the rows that count one half by the root of that, in place."""
    rows[..., 0, :] *= math.sqrt(0.5)
    if rows.shape[-1] % 2 == 0:
        rows[..., -1, :] *= math.sqrt(0.5)
    return rows


def feature_width(dim: int, with_taylor: bool) -> int:
    """Features of ``dim`` channels: of the exponential to second order, or of half the square."""
    return taylor_width(dim) if with_taylor else half_square_width(dim)
