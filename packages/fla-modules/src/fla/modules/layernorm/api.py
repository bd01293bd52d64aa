"""The functional forms of layer norm, RMS norm and group norm."""

from __future__ import annotations

import torch

from fla.modules._norm import run_norm


def layer_norm(
    x: torch.Tensor,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    eps: float = 1e-5,
    prenorm: bool = False,
    residual_in_fp32: bool = False,
    is_rms_norm: bool = False,
    backend: str | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    r"""Layer norm over the last dimension (arXiv 1607.06450), with the residual added first.

    .. math:: s = x + residual, \qquad y = \frac{s - \bar s}{\sqrt{\mathrm{var}(s) + eps}} \odot weight + bias

    The sum, its statistics and the gradients of weight and bias are taken in float32 (float64 for float64 inputs).
    Differentiable once in every floating argument.

    Args:
        x: ``[..., D]``; float32, bfloat16, float16, or float64 on the torch backend.
        weight: ``[D]``, any floating dtype; ones unless given.
        bias: ``[D]``, any floating dtype; zeros unless given.
        residual: the shape of x, any floating dtype.
        eps: added to the variance.
        prenorm: also return ``s``, the residual of the next block.
        residual_in_fp32: return ``s`` in float32; else in the dtype of the residual, or of x without one.
        is_rms_norm: RMS norm instead, as :func:`rms_norm`.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given. The kernels hold rows of up to
            8192 channels; wider ones take PyTorch.

    Returns:
        y in the shape and dtype of x, or ``(y, s)`` with ``prenorm``.

    Raises:
        TypeError: an argument is not a floating tensor.
        ValueError: an argument of the wrong shape, on another device, or a backend that cannot run here.
    """
    kind = "rms" if is_rms_norm else "layer"
    y, total = run_norm(
        x, weight, bias, residual, kind, eps, residual_in_fp32=residual_in_fp32, backend=backend, prenorm=prenorm
    )
    return (y, total) if prenorm else y


def rms_norm(
    x: torch.Tensor,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    eps: float = 1e-5,
    prenorm: bool = False,
    residual_in_fp32: bool = False,
    backend: str | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    r"""RMS norm over the last dimension (arXiv 1910.07467), with the residual added first.

    .. math:: s = x + residual, \qquad y = \frac{s}{\sqrt{\overline{s^2} + eps}} \odot weight + bias

    Arguments, precision, results and errors are those of :func:`layer_norm`.
    """
    y, total = run_norm(
        x, weight, bias, residual, "rms", eps, residual_in_fp32=residual_in_fp32, backend=backend, prenorm=prenorm
    )
    return (y, total) if prenorm else y


def group_norm(
    x: torch.Tensor,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    eps: float = 1e-5,
    prenorm: bool = False,
    residual_in_fp32: bool = False,
    is_rms_norm: bool = False,
    num_groups: int = 1,
    backend: str | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    r"""Layer norm or RMS norm over each of G equal parts of the last dimension, with the residual added first.

    .. math:: s = x + residual, \qquad y = [\mathrm{norm}(s_1), \dots, \mathrm{norm}(s_G)] \odot weight + bias

    Unlike ``torch.nn.GroupNorm`` (arXiv 1803.08494) it takes no statistics over time: every token is normalised by
    itself. Arguments, precision, results and errors are those of :func:`layer_norm`, and in addition:

    Args:
        x: ``[..., D]``.
        weight: ``[D]`` or None.
        bias: ``[D]`` or None.
        residual: the shape of x.
        eps: added to the variance or the mean square.
        prenorm: also return ``s``.
        residual_in_fp32: return ``s`` in float32.
        is_rms_norm: divide by the root of the mean square, without subtracting the mean.
        num_groups: G; divides D.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given. The kernels hold groups of up
            to 8192 channels; wider ones take PyTorch.

    Returns:
        y in the shape and dtype of x, or ``(y, s)`` with ``prenorm``.

    Raises:
        ValueError: the groups do not divide the channels.
    """
    y, total = run_norm(
        x,
        weight,
        bias,
        residual,
        "rms" if is_rms_norm else "layer",
        eps,
        groups=num_groups,
        residual_in_fp32=residual_in_fp32,
        backend=backend,
        prenorm=prenorm,
    )
    return (y, total) if prenorm else y
