"""The gates of Kimi delta attention: how a projection becomes a log decay of each channel."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from fla.utils.validation import check_floating


def fused_kda_gate(
    g: torch.Tensor,
    A_log: torch.Tensor | None = None,
    dt_bias: torch.Tensor | None = None,
    lower_bound: float | None = None,
    output_dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    r"""The log decay of Kimi delta attention (arXiv 2510.26692).

    .. math::
        -e^{A} \cdot \mathrm{softplus}(g + dt), \quad \text{or with a lower bound } l: \quad
        l \cdot \mathrm{sigmoid}(e^{A} (g + dt))

    Args:
        g: the projection ``[..., HV, K]``, any floating dtype; computed in float32 (float64 for float64).
        A_log: logarithm of the rate of each head, ``[HV]`` or another shape of as many values such as
            ``[1, 1, HV, 1]``. Needed without a lower bound; with one the rate is 1 unless given.
        dt_bias: bias of each channel ``[HV * K]``, or ``[HV, K]``; none unless given.
        lower_bound: where the log decay ends, below 0; none unless given.
        output_dtype: dtype of the result.

    Returns:
        The log decay ``[..., HV, K]``, natural logarithm, at most 0 and at least ``lower_bound``.

    Raises:
        TypeError: an argument that is no floating tensor.
        ValueError: an argument of the wrong shape, no ``A_log`` where it is needed, or a lower bound that is not
            below 0.
    """
    check_floating({"g": g, "A_log": A_log, "dt_bias": dt_bias})
    heads, channels = g.shape[-2:]
    if A_log is not None and A_log.numel() != heads:
        raise ValueError(f"A_log: expected one value for each of the HV={heads} heads, got {list(A_log.shape)}")
    if dt_bias is not None and dt_bias.shape not in ((heads * channels,), (heads, channels)):
        raise ValueError(f"dt_bias: expected shape [HV * K] with HV={heads}, K={channels}, got {list(dt_bias.shape)}")
    if lower_bound is not None:
        check_lower_bound(lower_bound)
        return naive_kda_lowerbound_gate(g, A_log, dt_bias, lower_bound, output_dtype)
    if A_log is None:
        raise ValueError("A_log: expected a tensor [HV] where there is no lower_bound, got None")
    return naive_kda_gate(g, A_log, dt_bias, output_dtype)


def naive_kda_gate(
    g: torch.Tensor,
    A_log: torch.Tensor,
    dt_bias: torch.Tensor | None = None,
    output_dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """:func:`fused_kda_gate` without a lower bound, in words of PyTorch."""
    return (-_rate(g, A_log) * F.softplus(_biased(g, dt_bias))).to(output_dtype)


def naive_kda_lowerbound_gate(
    g: torch.Tensor,
    A_log: torch.Tensor | None = None,
    dt_bias: torch.Tensor | None = None,
    lower_bound: float = -5.0,
    output_dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """:func:`fused_kda_gate` with a lower bound, in words of PyTorch."""
    biased = _biased(g, dt_bias)
    if A_log is not None:
        biased = _rate(g, A_log) * biased
    return (lower_bound * biased.sigmoid()).to(output_dtype)


def check_lower_bound(lower_bound: float) -> None:
    """Raise ValueError unless log decays can end at ``lower_bound``."""
    if not lower_bound < 0:
        raise ValueError(f"lower_bound: expected a log decay below 0, got {lower_bound}")


def _wide(g: torch.Tensor) -> torch.dtype:
    return torch.float64 if g.dtype == torch.float64 else torch.float32


def _rate(g: torch.Tensor, A_log: torch.Tensor) -> torch.Tensor:
    return A_log.to(_wide(g)).exp().reshape(-1, 1)


def _biased(g: torch.Tensor, dt_bias: torch.Tensor | None) -> torch.Tensor:
    wide = g.to(_wide(g))
    return wide if dt_bias is None else wide + dt_bias.to(wide.dtype).view(g.shape[-2:])
