"""What a norm computes, in plain PyTorch: the truth in float64, and the path for machines without a GPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from fla.modules._checks import needs_gradient

GATES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"swish": F.silu, "silu": F.silu, "sigmoid": torch.sigmoid}
"""Activation of the gate by name."""


def sum_dtype(x: torch.Tensor, residual: torch.Tensor | None, residual_in_fp32: bool) -> torch.dtype:
    """The dtype in which ``x + residual`` is handed on."""
    dtype = x.dtype if residual is None else residual.dtype
    return torch.promote_types(dtype, torch.float32) if residual_in_fp32 else dtype


def norm_ref(
    x: torch.Tensor,
    gate: torch.Tensor | None,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    kind: str,
    activation: str,
    eps: float,
    groups: int,
    total_dtype: torch.dtype,
    out_dtype: torch.dtype,
    quantise: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The normalised rows in ``out_dtype``, and ``x + residual`` in ``total_dtype``.

    Computed in float32, or float64 for float64 inputs; differentiated by autograd.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    total = x.to(dtype) if residual is None else x.to(dtype) + residual.to(dtype)
    weight, bias = (None if p is None else p.to(dtype) for p in (weight, bias))
    y = _normalise(total, weight, bias, kind, eps, groups)
    if gate is not None:
        y = y * GATES[activation](gate.to(dtype))
    if quantise:
        y = straight_through(quantise_rows(y), y)
    return y.to(out_dtype), total.to(total_dtype)


def quantise_rows(x: torch.Tensor) -> torch.Tensor:
    """Rows on 255 steps between plus and minus their largest magnitude, which is taken as 1e-5 where it is smaller."""
    scale = 127 / x.abs().amax(-1, keepdim=True).clamp(min=1e-5)
    return (x * scale).round() / scale


def straight_through(rounded: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The value of ``rounded`` with the gradient of x (arXiv 1308.3432)."""
    # Nothing is added to the value, whatever x is.
    return rounded.detach() + (x - x.detach()) if needs_gradient(x) else rounded


def _normalise(
    x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, kind: str, eps: float, groups: int
) -> torch.Tensor:
    if groups > 1:
        y = _normalise(x.unflatten(-1, (groups, -1)), None, None, kind, eps, 1).flatten(-2)
        y = y if weight is None else y * weight
        return y if bias is None else y + bias
    if kind == "layer":
        return F.layer_norm(x, x.shape[-1:], weight, bias, eps)
    if kind == "l2":
        return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + eps)
    y = F.rms_norm(x, x.shape[-1:], weight, eps)
    return y if bias is None else y + bias
