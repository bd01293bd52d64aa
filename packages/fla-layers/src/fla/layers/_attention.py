"""What layers of softmax attention share: positions and past under padding, and the cache of keys."""

from __future__ import annotations

import torch

from fla.layers.base import Call
from fla.layers.utils import find_padding, has_padding
from fla.ops.attn import parallel_attn


def rotary_offset(call: Call) -> int | torch.Tensor:
    """The position of the first new step of every sequence, as positions count: real tokens only."""
    mask = call.attention_mask
    if call.past and mask is not None and has_padding(mask, mask.shape[1]):
        return mask[:, : call.past].sum(-1, dtype=torch.int32)
    return call.past


def extend_cache(
    keys: torch.Tensor, values: torch.Tensor, call: Call, window_size: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """All keys and values ``[B, L, H, D]`` that the new tokens may see, and the cache told of the new ones.

    Raises:
        ValueError: packed sequences that are no padded batch, or padding between tokens where a window keeps columns.
    """
    if window_size is not None and call.past:
        _check_window(call)
    if call.padding is not None:
        keys, values = call.padding.pad(keys), call.padding.pad(values)
    elif call.cu_seqlens is not None:
        raise ValueError(
            "cu_seqlens: a cache of keys needs rows; pass a padded batch [B, T] and its attention_mask instead"
        )
    return call.extend(keys, values, window_size)


def attend_to_past(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    call: Call,
    window_size: int | None,
    scale: float | None = None,
) -> torch.Tensor:
    """Attention of the new tokens, as the call lays them out, over keys and values ``[B, L, H, D]`` of all steps."""
    padding = None if call.attention_mask is None else find_padding(call.attention_mask, keys.shape[1])
    if padding is None:
        return parallel_attn(q, keys, values, scale, window_size)
    cu_seqlens, batch = call.cu_seqlens, q.shape[0]
    if cu_seqlens is None:
        cu_seqlens = torch.arange(0, batch * call.steps + 1, call.steps, dtype=torch.int32, device=q.device)
        q = q.flatten(0, 1)[None]
    o = parallel_attn(q, padding.unpad(keys), padding.unpad(values), scale, window_size, cu_seqlens, padding.cu_seqlens)
    return o if call.padding is not None else o[0].unflatten(0, (batch, call.steps))


def _check_window(call: Call) -> None:
    """A window keeps its last columns: where some of a row's are padding, older tokens must not be missed for it."""
    mask, state = call.attention_mask, call.read("attn_state")
    kept = 0 if state is None else state[0].shape[1]
    if mask is None or kept == call.past or not has_padding(mask, kept + call.steps):
        return
    real = mask != 0
    dropped, continues = real[:, : call.past - kept].any(-1), real[:, call.past :].any(-1)
    if (dropped & continues & ~real[:, call.past - kept : call.past].all(-1)).any():
        raise ValueError(
            f"attention_mask: a window's cache keeps the last {kept} columns, so that padding between the tokens of a "
            "row would take the place of tokens in it; expected padding on the left"
        )
