"""Parts shared by the layers of RWKV-6 and RWKV-7: hidden channels, and the terms of their initial values."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Height(NamedTuple):
    """The height of a layer in its model, rising from 0 to 1, and falling from 1 to almost 0."""

    rising: float
    falling: float


def height_of(layer_idx: int | None, num_hidden_layers: int) -> Height:
    """The height of a layer in a model of so many."""
    layer_idx = layer_idx or 0
    num_hidden_layers = max(num_hidden_layers, layer_idx + 1)
    return Height(layer_idx / max(num_hidden_layers - 1, 1), 1 - layer_idx / num_hidden_layers)


def ramp(channels: int) -> torch.Tensor:
    """Numbers that rise from 0 to almost 1 over the channels."""
    return torch.arange(channels, dtype=torch.float32) / channels


def hidden_channels(hidden_size: int, hidden_ratio: float, intermediate_size: int | None) -> int:
    """Hidden channels of channel mixing: as given, or from the ratio, rounded up to a multiple of 32."""
    return -(-int(hidden_size * hidden_ratio) // 32) * 32 if intermediate_size is None else intermediate_size
