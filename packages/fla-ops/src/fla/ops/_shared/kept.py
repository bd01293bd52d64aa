"""Tensors that follow from numbers alone, made once and kept."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial, wraps

import torch

from fla.utils.plans import keep


def kept(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Remember what ``make(device, *numbers)`` returns; the result is called as ``(like, *numbers)``.

    What is kept can be read on every stream, in graphs captured later, and in training. Not kept is what is made
    inside a graph of ``torch.compile``, for fake tensors, or while a CUDA graph is captured, because it belongs to
    that graph.

    Args:
        make: from a device and hashable arguments a tensor on that device.
    """
    known: dict[tuple[torch.device, tuple[Hashable, ...]], torch.Tensor] = {}

    @wraps(make)
    def get(like: torch.Tensor, *numbers: Hashable) -> torch.Tensor:
        device = like.device
        if torch.compiler.is_compiling() or type(like) is not torch.Tensor:
            return make(device, *numbers)
        tensor = keep(partial(find, device, numbers))
        return make(device, *numbers) if tensor is None else tensor

    def find(device: torch.device, numbers: tuple[Hashable, ...]) -> torch.Tensor | None:
        tensor = known.get((device, numbers))
        if tensor is None and not _is_captured(device):
            # A tensor made in inference mode could not be used in training later.
            with torch.inference_mode(False):
                tensor = make(device, *numbers)
            _wait(device)
            known[device, numbers] = tensor
        return tensor

    return get


def _is_captured(device: torch.device) -> bool:
    """Whether what runs on the device now goes into a CUDA graph, and only a replay computes it."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def _wait(device: torch.device) -> None:
    """Wait until what was queued is done, so that other streams see it; once for each kept tensor."""
    if device.type != "cpu":
        torch.get_device_module(device).current_stream(device).synchronize()
