"""Parts shared by the layers of softmax attention: positions and past under padding, and the cache of keys."""

from __future__ import annotations

import torch

from fla.layers.base import Call, Mixer
from fla.layers.cache import MixerCache
from fla.layers.utils import ReadMask
from fla.ops.attn import parallel_attn


class KeyMixer(Mixer):
    """A mixer whose cache holds keys and values, or what they are made of, one for each step."""

    window_size: int | None
    """Keys that a query sees, its own included; all before it where None."""

    def check_layout(
        self, cache: MixerCache, mask: ReadMask | None = None, cu_seqlens: torch.Tensor | None = None
    ) -> None:
        """Raise ValueError for packed sequences, and for padding between tokens where a window keeps columns."""
        if cu_seqlens is not None:
            raise ValueError(
                "cu_seqlens: a cache of keys needs rows; pass a padded batch [B, T] and its attention_mask instead"
            )
        if mask is None or self.window_size is None:
            return
        state = cache[self.layer_idx or 0].get("attn_state")
        if state is not None and mask.has_hole(state[0].shape[1]):
            raise ValueError(
                f"attention_mask: a window's cache keeps the last {state[0].shape[1]} columns, so that padding between "
                "the tokens of a row would take the place of tokens in it; expected padding on the left"
            )


def rotary_offset(call: Call) -> int | torch.Tensor:
    """The position of the first new step of every sequence, as positions count: real tokens only."""
    mask = call.mask
    if call.past and mask is not None and mask.has_padding(mask.length):
        return mask.tensor[:, : call.past].sum(-1, dtype=torch.int32)
    return call.past


def extend_cache(
    keys: torch.Tensor, values: torch.Tensor, call: Call, window_size: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Store new keys and values in the cache, and return all ``[B, L, H, D]`` that the new tokens may see."""
    if call.padding is not None:
        keys, values = call.padding.pad(keys), call.padding.pad(values)
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
    padding = None if call.mask is None else call.mask.padding(keys.shape[1])
    if padding is None:
        return parallel_attn(q, keys, values, scale, window_size)
    cu_seqlens, batch = call.cu_seqlens, q.shape[0]
    if cu_seqlens is None:
        cu_seqlens = torch.arange(0, batch * call.steps + 1, call.steps, dtype=torch.int32, device=q.device)
        q = q.flatten(0, 1)[None]
    o = parallel_attn(
        q,
        padding.unpad(keys),
        padding.unpad(values),
        scale,
        window_size,
        cu_seqlens,
        padding.cu_seqlens,
        max_seqlen=call.steps,
        max_seqlen_k=keys.shape[1],
    )
    return o if call.padding is not None else o[0].unflatten(0, (batch, call.steps))
