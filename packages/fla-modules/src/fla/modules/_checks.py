"""Checks on a single argument, cheap enough for functions that take a few microseconds."""

from __future__ import annotations

import torch

from fla.utils.validation import FLOATING_DTYPES


def check_tensor(name: str, tensor: torch.Tensor, device: torch.device | None = None) -> None:
    """Raise unless ``tensor`` is a floating tensor, on the ``device`` of x where that is given.

    Raises:
        TypeError: not a tensor, or not of a floating dtype.
        ValueError: on another device.
    """
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(tensor).__name__}")
    if tensor.dtype not in FLOATING_DTYPES:
        raise TypeError(f"{name}: expected float32, bfloat16, float16 or float64, got {tensor.dtype}")
    if device is not None and tensor.device != device:
        raise ValueError(f"{name}: expected on {device} as x, got {tensor.device}")


def check_shape_of_x(name: str, tensor: torch.Tensor, x: torch.Tensor) -> None:
    """Raise ValueError unless ``tensor`` has the shape of x."""
    if tensor.shape != x.shape:
        raise ValueError(f"{name}: expected the shape of x {list(x.shape)}, got {list(tensor.shape)}")


def needs_gradient(*tensors: torch.Tensor | None) -> bool:
    """Whether a call on ``tensors`` is to be differentiated."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
