"""Gated linear units in plain PyTorch: the truth in float64, and the path for machines without a GPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F


def _power_gate(x: torch.Tensor, power: float) -> torch.Tensor:
    positive = x > 0
    # The logarithm must not see the other half: its gradient there would be NaN, and NaN times 0 is NaN.
    base = torch.where(positive, x, 1.0)
    return torch.sigmoid(x) * torch.where(positive, base ** (power / (base.sqrt() + 1)), x)


GATES: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "swish": lambda x, power: F.silu(x),
    "sigmoid": lambda x, power: torch.sigmoid(x),
    "power": _power_gate,
}
"""The function of x that y is multiplied by."""


def glu_ref(x: torch.Tensor, y: torch.Tensor, gate: str, power: float) -> torch.Tensor:
    """``gate(x) * y`` in the dtype of x, computed in float32 (float64 for float64 inputs)."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    return (GATES[gate](x.to(dtype), power) * y.to(dtype)).to(x.dtype)
