"""The short causal convolution in plain PyTorch: the torch backend, and in float64 the truth."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def causal_conv1d_ref(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    activate: bool,
    cu_seqlens: torch.Tensor | None,
) -> torch.Tensor:
    """Outputs ``[B, T, D]`` of :func:`fla.modules.convolution.causal_conv1d`."""
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    taps = weight.to(dtype).unbind(1)
    inputs = x.to(dtype)
    if cu_seqlens is None:
        shifted = _shifts(inputs, initial_state, len(taps))
    else:
        shifted = _shifts_packed(inputs, initial_state, len(taps), cu_seqlens)
    y = taps[0] * shifted[0]
    for tap, part in zip(taps[1:], shifted[1:]):
        y = torch.addcmul(y, tap, part)
    if bias is not None:
        y = y + bias.to(dtype)
    if activate:
        y = F.silu(y)
    if residual is not None:
        y = y + residual.to(dtype)
    return y.to(x.dtype)


def _shifts(x: torch.Tensor, initial_state: torch.Tensor | None, width: int) -> list[torch.Tensor]:
    """x delayed by ``width - 1`` steps, ..., by 1 step, and as it is."""
    if initial_state is None:
        padded = F.pad(x, (0, 0, width - 1, 0))
    else:
        padded = torch.cat([initial_state[..., 1:].transpose(1, 2).to(x.dtype), x], 1)
    return [padded[:, w : w + x.shape[1]] for w in range(width)]


def _shifts_packed(
    x: torch.Tensor, initial_state: torch.Tensor | None, width: int, cu_seqlens: torch.Tensor
) -> list[torch.Tensor]:
    sequence, position = sequence_positions(cu_seqlens, x.shape[1])
    shifted = []
    for w, part in enumerate(_shifts(x, None, width)):
        inside = (position >= width - 1 - w)[:, None]
        if initial_state is None:
            before = x.new_zeros(())
        else:
            before = initial_state.to(x.dtype)[sequence, :, (position + w + 1).clamp(max=width - 1)]
        shifted.append(torch.where(inside, part, before))
    return shifted


def sequence_positions(cu_seqlens: torch.Tensor, total: int) -> tuple[torch.Tensor, torch.Tensor]:
    """For each of ``total`` packed steps its sequence and its position there."""
    steps = torch.arange(total, device=cu_seqlens.device)
    sequence = torch.searchsorted(cu_seqlens[1:], steps, right=True)
    return sequence, steps - cu_seqlens[sequence]


def last_inputs(
    x: torch.Tensor, initial_state: torch.Tensor | None, width: int, cu_seqlens: torch.Tensor | None
) -> torch.Tensor:
    """The last ``width`` inputs of every sequence ``[N, D, W]``, newest last; what came before the first is the
    initial state, or zero."""
    batch, total, channels = x.shape
    if cu_seqlens is None:
        if initial_state is None:
            recent = F.pad(x[:, -width:], (0, 0, max(0, width - total), 0))
        else:
            recent = torch.cat([initial_state.transpose(1, 2).to(x.dtype), x], 1)[:, -width:]
        return _owned(recent.transpose(1, 2))
    start, end = cu_seqlens[:-1, None], cu_seqlens[1:, None]
    step = end - width + torch.arange(width, device=x.device)
    recent = x[0][step.clamp(min=0)].transpose(1, 2)
    inside = (step >= start)[:, None, :]
    if initial_state is None:
        return _owned(torch.where(inside, recent, 0))
    older = (step - start + width).clamp(max=width - 1)[:, None, :].expand(-1, channels, -1)
    return _owned(torch.where(inside, recent, initial_state.to(x.dtype).gather(2, older)))


def _owned(state: torch.Tensor) -> torch.Tensor:
    """A contiguous copy, which may be updated in place and keeps nothing but itself in memory."""
    return state.clone(memory_format=torch.contiguous_format)


def causal_conv1d_update_ref(
    x: torch.Tensor,
    cache: torch.Tensor,
    residual: torch.Tensor | None,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    activate: bool,
) -> torch.Tensor:
    """One step ``[N, D]`` for every sequence; the cache ``[N, D, W]`` takes the step in, in place."""
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    cache.copy_(torch.cat([cache[..., 1:], x.to(cache.dtype).unsqueeze(-1)], -1))
    y = (cache.to(dtype) * weight.to(dtype)).sum(-1)
    if bias is not None:
        y = y + bias.to(dtype)
    if activate:
        y = F.silu(y)
    if residual is not None:
        y = y + residual.to(dtype)
    return y.to(x.dtype)
