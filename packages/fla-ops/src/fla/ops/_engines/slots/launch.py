"""Launchers of the kernels of the softmax over slots."""

from __future__ import annotations

from typing import Any

import torch
import triton

from fla.ops._engines.slots import kernels
from fla.utils.plans import launch
from fla.utils.tiles import power_of_two

#: Elements of a program, so that every thread of its warps has 16.
BLOCK = 2048
WARPS = 4


def _launch(kernel: Any, *tensors: torch.Tensor) -> torch.Tensor:
    """The last of the tensors, all ``[B, T, H, M]``, once the kernel has written it."""
    slots = tensors[0].shape[-1]
    count, block = tensors[0].numel() // slots, power_of_two(slots)
    size = max(1, BLOCK // block)
    launch(kernel, (triton.cdiv(count, size),), *tensors, R=count, M=slots, BR=size, BM=block, num_warps=WARPS)
    return tensors[-1]


def slot_softmax_triton(scores: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Weights of the scores."""
    scores = scores.contiguous()
    return _launch(kernels.slots_softmax_fwd_kernel, scores, torch.empty_like(scores, dtype=dtype))


def slot_softmax_bwd_triton(weights: torch.Tensor, dweights: torch.Tensor) -> torch.Tensor:
    """Gradient of the scores in the dtype of the weights."""
    weights, dweights = weights.contiguous(), dweights.contiguous()
    return _launch(kernels.slots_softmax_bwd_kernel, weights, dweights, torch.empty_like(weights))
