"""The sum over the programs of a backward pass, in one launch and a fixed order.

Shared by the five wheels; not public: it may change in any release.
"""

from __future__ import annotations

import torch

from fla.utils.plans import launch
from fla.utils.sum_kernels import part_sum_kernel
from fla.utils.tiles import power_of_two

#: From so many elements on there are programs enough without cutting rows into pieces of 16.
MANY = 16384


def sum_parts(parts: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The sum of float32 ``[P, ...]`` over P, in ``dtype`` and memory of its own."""
    total = parts.new_empty(parts.shape[1:], dtype=dtype)
    elements = total.numel()
    most, block = (32, 128) if elements >= MANY else (256, 16)
    launch(
        part_sum_kernel,
        (-(-elements // block),),
        parts,
        total,
        parts.shape[0],
        elements,
        BP=min(most, power_of_two(parts.shape[0], 1)),
        BN=block,
        num_warps=4,
    )
    return total
