"""The functional forms of gated layer norm and gated RMS norm."""

from __future__ import annotations

import torch

from fla.modules._norm import run_norm


def layer_norm_gated(
    x: torch.Tensor,
    g: torch.Tensor,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    activation: str = "swish",
    residual: torch.Tensor | None = None,
    prenorm: bool = False,
    residual_in_fp32: bool = False,
    eps: float = 1e-6,
    backend: str | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    r"""Layer norm over the last dimension, multiplied by the activation of a gate.

    .. math:: s = x + residual, \qquad y = \mathrm{layer\_norm}(s) \odot \mathrm{activation}(g)

    Arguments, precision, results and errors are those of :func:`fla.modules.layernorm.layer_norm`, and in addition:

    Args:
        x: ``[..., D]``.
        g: the gate, the shape of x, any floating dtype.
        weight: ``[D]`` or None.
        bias: ``[D]`` or None.
        activation: ``"swish"`` (``"silu"``) or ``"sigmoid"``.
        residual: the shape of x.
        prenorm: also return ``s``.
        residual_in_fp32: return ``s`` in float32.
        eps: added to the variance.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        y in the shape and dtype of x, or ``(y, s)`` with ``prenorm``.
    """
    y, total = run_norm(
        x,
        weight,
        bias,
        residual,
        "layer",
        eps,
        gate=g,
        activation=activation,
        prenorm=prenorm,
        residual_in_fp32=residual_in_fp32,
        backend=backend,
    )
    return (y, total) if prenorm else y


def rms_norm_gated(
    x: torch.Tensor,
    g: torch.Tensor,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    activation: str = "swish",
    residual: torch.Tensor | None = None,
    prenorm: bool = False,
    residual_in_fp32: bool = False,
    eps: float = 1e-6,
    backend: str | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    r"""RMS norm over the last dimension, multiplied by the activation of a gate.

    .. math:: s = x + residual, \qquad y = \mathrm{rms\_norm}(s) \odot \mathrm{activation}(g)

    Arguments, precision, results and errors are those of :func:`layer_norm_gated`.
    """
    y, total = run_norm(
        x,
        weight,
        bias,
        residual,
        "rms",
        eps,
        gate=g,
        activation=activation,
        prenorm=prenorm,
        residual_in_fp32=residual_in_fp32,
        backend=backend,
    )
    return (y, total) if prenorm else y
