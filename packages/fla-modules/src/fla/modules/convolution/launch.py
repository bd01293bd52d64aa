"""Launchers of the short convolution kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import triton

from fla.modules.convolution import kernels
from fla.utils.plans import launch
from fla.utils.sum_launch import sum_parts
from fla.utils.tiles import TileKey, TileTable, power_of_two, tile_key
from fla.utils.varlen import max_chunks
from fla.utils.varlen_launch import chunk_table

#: Programs of the backward pass; those that share a block of channels each write a partial weight gradient.
BACKWARD_PROGRAMS = 8192


class ConvTile(NamedTuple):
    """Steps and channels that a program takes, and how many steps it loads at once."""

    steps: int
    channels: int
    ahead: int
    warps: int


def _rule(steps: int, ahead: int) -> Callable[[TileKey], ConvTile]:
    def tile(key: TileKey) -> ConvTile:
        # All that a thread keeps of a channel grows with the filter's width (the key's value_dim).
        channels_a_thread = max(1, 4 // -(-key.value_dim // 4))
        channels = min(power_of_two(key.key_dim, 32), 128)
        return ConvTile(steps, channels, ahead, max(1, channels // (32 * channels_a_thread)))

    return tile


FORWARD_TILES: TileTable[ConvTile] = TileTable(_rule(64, ahead=8))
BACKWARD_TILES: TileTable[ConvTile] = TileTable(_rule(64, ahead=4))


class TimeBlocks(NamedTuple):
    """How many blocks of steps there are, and of packed sequences the table that ``locate_block`` reads."""

    total: int
    sequence: torch.Tensor | None
    first_block: torch.Tensor | None


def time_blocks(x: torch.Tensor, cu_seqlens: torch.Tensor | None, steps: int) -> TimeBlocks:
    """x ``[B, T, D]`` cut into blocks of so many steps, none of which reaches over a boundary."""
    batch, total = x.shape[:2]
    if cu_seqlens is None:
        return TimeBlocks(batch * triton.cdiv(total, steps), None, None)
    table = chunk_table(cu_seqlens, total, steps)
    return TimeBlocks(max_chunks(total, cu_seqlens.shape[0] - 1, steps), table.sequence, table.first_chunk)


def _contiguous(x: torch.Tensor | None) -> torch.Tensor | None:
    return None if x is None else x.contiguous()


def conv_fwd(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    activate: bool,
) -> torch.Tensor:
    """Outputs ``[B, T, D]``."""
    x, weight = x.contiguous(), weight.contiguous()
    total, channels = x.shape[1:]
    tile = FORWARD_TILES.choose(tile_key(x, weight.shape[1]))
    blocks = time_blocks(x, cu_seqlens, tile.steps)
    y = torch.empty_like(x)
    launch(
        kernels.conv_fwd_kernel,
        (blocks.total, triton.cdiv(channels, tile.channels)),
        x,
        weight,
        bias,
        _contiguous(residual),
        _contiguous(initial_state),
        y,
        cu_seqlens,
        blocks.sequence,
        blocks.first_block,
        total,
        D=channels,
        W=weight.shape[1],
        BT=tile.steps,
        BD=tile.channels,
        P=tile.ahead,
        ACTIVATE=activate,
        HAS_BIAS=bias is not None,
        HAS_RESIDUAL=residual is not None,
        HAS_STATE=initial_state is not None,
        PACKED=cu_seqlens is not None,
        num_warps=tile.warps,
    )
    return y


def conv_bwd(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    dy: torch.Tensor,
    activate: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Gradients of x, weight, bias and the initial state; of the last two None where there is none."""
    x, weight, dy = x.contiguous(), weight.contiguous(), dy.contiguous()
    total, channels = x.shape[1:]
    tile = BACKWARD_TILES.choose(tile_key(x, weight.shape[1]))
    blocks = time_blocks(x, cu_seqlens, tile.steps)
    channel_blocks = triton.cdiv(channels, tile.channels)
    partials = min(blocks.total, max(1, BACKWARD_PROGRAMS // channel_blocks))
    dx = torch.empty_like(x)
    dweights = x.new_empty(partials, *weight.shape, dtype=torch.float32)
    dbiases = None if bias is None else x.new_empty(partials, channels, dtype=torch.float32)
    launch(
        kernels.conv_bwd_kernel,
        (partials, channel_blocks),
        x,
        weight,
        bias,
        _contiguous(initial_state),
        dy,
        dx,
        dweights,
        dbiases,
        cu_seqlens,
        blocks.sequence,
        blocks.first_block,
        total,
        blocks.total,
        D=channels,
        W=weight.shape[1],
        BT=tile.steps,
        BD=tile.channels,
        P=tile.ahead,
        ACTIVATE=activate,
        HAS_BIAS=bias is not None,
        HAS_STATE=initial_state is not None,
        PACKED=cu_seqlens is not None,
        num_warps=tile.warps,
    )
    return (
        dx,
        sum_parts(dweights, weight.dtype),
        None if bias is None or dbiases is None else sum_parts(dbiases, bias.dtype),
        None if initial_state is None else _state_gradient(x, weight, bias, initial_state, cu_seqlens, dy, activate),
    )


def _state_gradient(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    initial_state: torch.Tensor,
    cu_seqlens: torch.Tensor | None,
    dy: torch.Tensor,
    activate: bool,
) -> torch.Tensor:
    """Gradient of the initial state: it reaches the first W - 1 steps of each sequence alone, so PyTorch is enough."""
    sequences, _, width = initial_state.shape
    if cu_seqlens is None:
        step = torch.arange(width - 1, device=x.device).expand(sequences, -1)
        first, gradient, inside = x[:, : width - 1], dy[:, : width - 1], step < x.shape[1]
    else:
        step = cu_seqlens[:-1, None] + torch.arange(width - 1, device=x.device)
        inside = step < cu_seqlens[1:, None]
        step = step.clamp(max=x.shape[1] - 1)
        first, gradient = x[0][step], dy[0][step]
    missing = width - 1 - first.shape[1]
    first = torch.nn.functional.pad(first.float(), (0, 0, 0, missing))
    gradient = torch.nn.functional.pad(gradient.float(), (0, 0, 0, missing)) * inside[..., None]
    taps = weight.float()
    inputs = torch.cat([initial_state[..., 1:].transpose(1, 2).float(), first], 1)
    if activate:
        z = torch.zeros_like(gradient) if bias is None else bias.float().expand_as(gradient)
        for w in range(width):
            z = z + inputs[:, w : w + width - 1] * taps[:, w]
        sigmoid = torch.sigmoid(z)
        gradient = gradient * sigmoid * (1 + z * (1 - sigmoid))
    dinputs = torch.zeros_like(inputs)
    for w in range(width):
        dinputs[:, w : w + width - 1] += gradient * taps[:, w]
    dstate = torch.zeros_like(initial_state)
    dstate[..., 1:] = dinputs[:, : width - 1].transpose(1, 2)
    return dstate


def conv_update(
    x: torch.Tensor,
    cache: torch.Tensor,
    residual: torch.Tensor | None,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    activate: bool,
) -> torch.Tensor:
    """One step ``[N, D]``; the cache, of any strides, is updated in place."""
    if not cache.is_contiguous():
        contiguous = cache.contiguous()
        y = conv_update(x, contiguous, residual, weight, bias, activate)
        cache.copy_(contiguous)
        return y
    x, weight = x.contiguous(), weight.contiguous()
    sequences, channels, width = cache.shape
    y = torch.empty_like(x)
    block = min(power_of_two(channels), 256)
    launch(
        kernels.conv_update_kernel,
        (sequences, triton.cdiv(channels, block)),
        x,
        cache,
        _contiguous(residual),
        weight,
        bias,
        y,
        D=channels,
        W=width,
        BW=power_of_two(width, 1),
        BD=block,
        ACTIVATE=activate,
        HAS_BIAS=bias is not None,
        HAS_RESIDUAL=residual is not None,
        num_warps=4,
    )
    return y
