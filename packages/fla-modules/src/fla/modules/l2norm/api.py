"""The functional form of the L2 norm."""

from __future__ import annotations

import torch

from fla.modules._norm import run_norm
from fla.utils.validation import FLOATING_DTYPES


def l2_norm(
    x: torch.Tensor, eps: float = 1e-6, output_dtype: torch.dtype | None = None, backend: str | None = None
) -> torch.Tensor:
    r"""Scale the last dimension to unit length.

    .. math:: y = x / \sqrt{\textstyle\sum x^2 + eps}

    The sum of squares is accumulated in float32 (float64 for float64 inputs). Differentiable once.

    Args:
        x: ``[..., D]``; float32, bfloat16, float16, or float64 on the torch backend.
        eps: added to the sum of squares.
        output_dtype: of the result; that of x unless given.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        y in the shape of x.

    Raises:
        TypeError: x is not a floating tensor, or ``output_dtype`` not a floating dtype.
        ValueError: x has no channels, or the backend cannot run here.
    """
    if output_dtype is not None and output_dtype not in FLOATING_DTYPES:
        raise TypeError(f"output_dtype: expected a floating dtype, got {output_dtype}")
    return run_norm(x, None, None, None, "l2", eps, out_dtype=output_dtype, backend=backend)[0]


#: The peer's other name for it.
l2norm = l2_norm
