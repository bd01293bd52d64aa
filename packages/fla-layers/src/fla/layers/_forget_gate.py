"""The forget gate of HGRN and HGRN2: a sigmoid that stays above a bound learned for each layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def bounded_forget_gate(f: torch.Tensor, bound: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    r"""The logarithm of a forget gate, and what the gate leaves of one.

    .. math:: e^g = b + (1 - b)\, \mathrm{sigmoid}(f), \qquad 1 - e^g = (1 - b)\, \mathrm{sigmoid}(-f)

    Both in float32 (float64 for float64), accurate where either is tiny; g is finite for every f, also where the
    bound is 0 or 1.

    Args:
        f: ``[..., D]``.
        bound: b in [0, 1], ``[D]``; 0 unless given.

    Returns:
        ``(g, rest)``, each ``[..., D]``.
    """
    f = f if f.dtype == torch.float64 else f.float()
    if bound is None:
        return F.logsigmoid(f), torch.sigmoid(-f)
    limits = torch.finfo(f.dtype)
    b = bound.to(f.dtype).clamp(limits.tiny, 1 - limits.eps)
    return torch.logaddexp(b.log(), torch.log1p(-b) + F.logsigmoid(f)), (1 - b) * torch.sigmoid(-f)


def bound_of_layer(lower_bounds: torch.Tensor | None, layer_idx: int | None) -> torch.Tensor | None:
    """The bound of one layer ``[D]``, out of those of all layers ``[layers, D]`` where they are given.

    Raises:
        ValueError: bounds of all layers, and no ``layer_idx``.
    """
    if lower_bounds is None or lower_bounds.ndim == 1:
        return lower_bounds
    if layer_idx is None:
        raise ValueError("layer_idx: expected the layer's row of lower_bounds, got None")
    return lower_bounds[layer_idx]
