"""What callers of the delta rules may leave to the op: the norm of queries and keys, and the sigmoid of beta."""

from __future__ import annotations

import torch

from fla.ops._shared.arguments import sum_dtype

#: Under the root, so that a key of zeros stays zero.
EPSILON = 1e-6


def unit(x: torch.Tensor) -> torch.Tensor:
    """``x / |x|`` over the last dimension, computed in float32 (float64 for float64), in the dtype of x."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=sum_dtype(x))
    return (x * torch.rsqrt(norm.square() + EPSILON)).to(x.dtype)


def write_strength(beta: torch.Tensor, use_sigmoid: bool, allow_neg_eigval: bool) -> torch.Tensor:
    """Beta from what the caller gives: its sigmoid if asked for, and that doubled where eigenvalues may be negative.

    Raises:
        ValueError: ``allow_neg_eigval`` without the sigmoid.
    """
    if not use_sigmoid:
        if allow_neg_eigval:
            raise ValueError(
                "allow_neg_eigval: doubles the sigmoid that use_beta_sigmoid_in_kernel=True takes; a beta that is "
                "final already is doubled by its caller"
            )
        return beta
    beta = beta.to(sum_dtype(beta)).sigmoid()
    return beta * 2 if allow_neg_eigval else beta
