"""Quantisation of activations and weights, and a linear layer of both."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from fla.modules._checks import check_tensor
from fla.modules._norm import run_norm
from fla.modules._norm.reference import quantise_rows, straight_through


def activation_quant(x: torch.Tensor) -> torch.Tensor:
    r"""Round every token to 8 bits (arXiv 2402.17764), with straight-through gradients.

    .. math:: y = \mathrm{round}(s x) / s, \qquad s = 127 / \max(|x|)

    Computed in float32 (float64 for float64 inputs). The largest magnitude is taken as 1e-5 where it is smaller.

    Args:
        x: ``[..., D]``, float32, bfloat16, float16 or float64; the last dimension is a token's.

    Returns:
        y in the shape and dtype of x.

    Raises:
        TypeError: x is not a floating tensor.
    """
    check_tensor("x", x)
    return straight_through(quantise_rows(_widened(x)).to(x.dtype), x)


def weight_quant(w: torch.Tensor) -> torch.Tensor:
    r"""Round a matrix to -1, 0 and 1 times its mean magnitude (arXiv 2402.17764), with straight-through gradients.

    .. math:: y = \beta\, \mathrm{clip}(\mathrm{round}(w / \beta), -1, 1), \qquad \beta = \overline{|w|}

    Computed in float32 (float64 for float64 inputs). The mean is taken as 1e-5 where it is smaller.

    Args:
        w: any shape; float32, bfloat16, float16 or float64.

    Returns:
        y in the shape and dtype of w.

    Raises:
        TypeError: w is not a floating tensor.
    """
    check_tensor("w", w)
    signs, scale = to_ternary(w)
    return straight_through((signs * scale).to(w.dtype), w)


def to_ternary(w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The -1, 0 and 1 of :func:`weight_quant`, and what they are scaled by, in float32 (or float64)."""
    w = _widened(w.detach())
    scale = w.abs().mean().clamp(min=1e-5)
    return (w / scale).round().clamp(-1, 1), scale


def rms_norm_quant(
    x: torch.Tensor,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    eps: float = 1e-5,
    prenorm: bool = False,
    residual_in_fp32: bool = False,
    backend: str | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """:func:`activation_quant` of :func:`fla.modules.layernorm.rms_norm` in one pass, with nothing rounded between.

    Arguments, results and errors are those of ``rms_norm``; gradients pass through the quantisation as if it were not
    there.
    """
    y, total = run_norm(
        x,
        weight,
        bias,
        residual,
        "rms",
        eps,
        prenorm=prenorm,
        residual_in_fp32=residual_in_fp32,
        quantise=True,
        backend=backend,
    )
    return (y, total) if prenorm else y


def rms_norm_linear_quant(
    x: torch.Tensor,
    norm_weight: torch.Tensor | None,
    norm_bias: torch.Tensor | None,
    linear_weight: torch.Tensor,
    linear_bias: torch.Tensor | None,
    residual: torch.Tensor | None = None,
    eps: float = 1e-5,
    prenorm: bool = False,
    residual_in_fp32: bool = False,
    backend: str | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    r"""RMS norm, quantisation and a linear map of BitNet b1.58 (arXiv 2402.17764).

    .. math:: y = \mathrm{quant}_8(\mathrm{norm}(x + residual))\, \mathrm{quant}_{1.58}(W)^\top + b

    Args:
        x: ``[..., D]``.
        norm_weight: ``[D]`` or None.
        norm_bias: ``[D]`` or None.
        linear_weight: ``[O, D]``; quantised by :func:`weight_quant`.
        linear_bias: ``[O]`` or None.
        residual: the shape of x; added first.
        eps: added to the mean square.
        prenorm: also return ``x + residual``.
        residual_in_fp32: return it in float32.
        backend: of :func:`rms_norm_quant`.

    Returns:
        ``[..., O]`` in the dtype of x, or that and ``x + residual`` with ``prenorm``.

    Raises:
        TypeError: an argument is not a floating tensor.
        ValueError: an argument of the wrong shape, on another device, or a backend that cannot run here.
    """
    y, total = run_norm(
        x,
        norm_weight,
        norm_bias,
        residual,
        "rms",
        eps,
        prenorm=prenorm,
        residual_in_fp32=residual_in_fp32,
        quantise=True,
        backend=backend,
    )
    o = F.linear(y, weight_quant(linear_weight), linear_bias)
    return (o, total) if prenorm else o


def _widened(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
