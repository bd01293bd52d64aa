"""Padded batches as packed sequences and back, and what layers written elsewhere ask of a cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch.utils.weak import WeakTensorKeyDictionary

from fla.layers.cache import MixerCache


class _Layer(Protocol):
    """A layer as it is in models: with a place in the cache."""

    @property
    def layer_idx(self) -> int | None: ...


def get_unpad_data(attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Where the real tokens of a padded batch are. Waits for the device.

    Args:
        attention_mask: ``[B, T]``, 1 for a real token and 0 for padding.

    Returns:
        ``(indices, cu_seqlens, max_seqlen)``: the positions of real tokens in the flattened batch, int64 ``[total]``;
        the boundaries of the packed sequences, int32 ``[B + 1]``; the length of the longest.
    """
    lengths = attention_mask.sum(-1, dtype=torch.int32)
    indices = torch.nonzero(attention_mask.flatten()).flatten()
    return indices, F.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0)), int(lengths.max())


def index_first_axis(x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Rows ``indices`` of x ``[N, ...]``."""
    return x.index_select(0, indices)


def pad_input(hidden_states: torch.Tensor, indices: torch.Tensor, batch: int, seqlen: int) -> torch.Tensor:
    """Put packed tokens ``[total, ...]`` back to where :func:`unpad_input` found them: ``[batch, seqlen, ...]``.

    Padding is zero.
    """
    padded = hidden_states.new_zeros(batch * seqlen, *hidden_states.shape[1:])
    return padded.index_copy(0, indices, hidden_states).unflatten(0, (batch, seqlen))  # type: ignore[no-any-return]


def unpad_input(
    q: torch.Tensor,
    states: tuple[torch.Tensor, ...],
    attention_mask: torch.Tensor,
    q_len: int,
    keepdim: bool = False,
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...], torch.Tensor, tuple[torch.Tensor, torch.Tensor], tuple[int, int]]:
    """The real tokens of padded queries, and of keys and values that may reach further back, packed.

    Waits for the device.

    Args:
        q: ``[B, q_len, ...]``, the last steps.
        states: keys, values and so on, ``[B, L, ...]`` each.
        attention_mask: ``[B, L]``, 1 for a real token and 0 for padding. A single query of a row that has others
            before it counts as real.
        q_len: new steps.
        keepdim: return ``[1, total, ...]`` in place of ``[total, ...]``.

    Returns:
        ``(q, states, indices_q, (cu_seqlens_q, cu_seqlens_k), (max_seqlen_q, max_seqlen_k))``: the packed tokens, and
        the results of :func:`get_unpad_data` for queries and states; ``indices_q`` is for :func:`pad_input`.

    Raises:
        ValueError: shapes that do not fit together.
    """
    batch, length = attention_mask.shape
    for name, x, steps in (("q", q, q_len), *(("states", state, length) for state in states)):
        if x.shape[:2] != (batch, steps):
            raise ValueError(f"{name}: expected shape [{batch}, {steps}, ...], got {list(x.shape)}")
    indices, cu_seqlens, max_seqlen = get_unpad_data(attention_mask)
    if q_len == length:
        indices_q, cu_seqlens_q, max_seqlen_q = indices, cu_seqlens, max_seqlen
    elif q_len == 1:
        cu_seqlens_q = torch.arange(batch + 1, dtype=torch.int32, device=q.device)
        indices_q, max_seqlen_q = cu_seqlens_q[:-1].long(), 1
    else:
        indices_q, cu_seqlens_q, max_seqlen_q = get_unpad_data(attention_mask[:, length - q_len :])
    packed = [index_first_axis(x.flatten(0, 1), i) for x, i in ((q, indices_q), *((y, indices) for y in states))]
    if keepdim:
        packed = [x[None] for x in packed]
    return packed[0], tuple(packed[1:]), indices_q, (cu_seqlens_q, cu_seqlens), (max_seqlen_q, max_seqlen)


def unpad_hidden_states(
    hidden_states: torch.Tensor, cu_seqlens: torch.Tensor | None, attention_mask: torch.Tensor | None, q_len: int
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """A padded batch as packed sequences, unless it is packed already or there is no padding.

    Args:
        hidden_states: ``[B, q_len, ...]``.
        cu_seqlens: boundaries of packed sequences; where they are given the mask is not looked at.
        attention_mask: ``[B, L]`` with L at least ``q_len``; the last columns count.
        q_len: new steps.

    Returns:
        ``(hidden_states, indices, cu_seqlens)``: ``[1, total, ...]``, what :func:`repad_hidden_states` asks for, and
        the boundaries; the arguments and None where nothing is to be done.

    Raises:
        ValueError: see :func:`find_padding`.
    """
    if cu_seqlens is not None or attention_mask is None:
        return hidden_states, None, cu_seqlens
    padding = find_padding(attention_mask, q_len)
    if padding is None:
        return hidden_states, None, None
    return padding.unpad(hidden_states), padding.indices, padding.cu_seqlens


def repad_hidden_states(
    hidden_states: torch.Tensor, indices: torch.Tensor | None, batch_size: int, q_len: int
) -> torch.Tensor:
    """Put tokens ``[1, total, ...]`` back to where :func:`unpad_hidden_states` found them, with zeros for padding."""
    return hidden_states if indices is None else pad_input(hidden_states[0], indices, batch_size, q_len)


def get_layer_cache(layer: _Layer, past_key_values: MixerCache | None) -> Mapping[str, Any] | None:
    """The states that a layer has stored, by name; None if there are none.

    Raises:
        ValueError: the layer has no ``layer_idx``.
    """
    return None if past_key_values is None else past_key_values[_place(layer)] or None


def update_layer_cache(layer: _Layer, past_key_values: MixerCache | None, **states: Any) -> Mapping[str, Any] | None:
    """Store states of a layer, by the names that the cache's ``update`` has, if there is a cache.

    Raises:
        TypeError: a name that it does not have.
        ValueError: the layer has no ``layer_idx``.
    """
    return None if past_key_values is None else past_key_values.update(layer_idx=_place(layer), **states)


def _place(layer: _Layer) -> int:
    if layer.layer_idx is None:
        raise ValueError(f"layer_idx: {type(layer).__name__} needs it to find its states in past_key_values")
    return layer.layer_idx


class Padding(NamedTuple):
    """Where the real tokens of a padded batch are; see :func:`get_unpad_data`."""

    indices: torch.Tensor
    cu_seqlens: torch.Tensor
    batch: int
    seqlen: int

    def unpad(self, x: torch.Tensor) -> torch.Tensor:
        """``[B, T, ...]`` -> ``[1, total, ...]``."""
        return index_first_axis(x.flatten(0, 1), self.indices)[None]

    def pad(self, x: torch.Tensor) -> torch.Tensor:
        """``[1, total, ...]`` -> ``[B, T, ...]``, with zeros for padding."""
        return pad_input(x[0], self.indices, self.batch, self.seqlen)


class _Known(NamedTuple):
    """What has been read from one version of a mask."""

    version: int | None
    last_padded: int
    """The last column with padding in any row, -1 if there is none."""
    paddings: dict[int, Padding]


_KNOWN = WeakTensorKeyDictionary()


def has_padding(attention_mask: torch.Tensor, steps: int) -> bool:
    """Whether there is padding among the last ``steps`` columns of a mask; see :func:`find_padding`."""
    return _known(attention_mask).last_padded >= attention_mask.shape[1] - steps


def find_padding(attention_mask: torch.Tensor, steps: int) -> Padding | None:
    """The padding among the last ``steps`` columns of a mask, None if there is none.

    Waits for the device, once for each mask and once more if there is padding: layers share the answer.

    Args:
        attention_mask: ``[B, L]`` with L at least ``steps``.
        steps: columns that count, from the end.

    Raises:
        ValueError: the mask holds values other than 0 and 1, or no real token in these columns.
    """
    if not has_padding(attention_mask, steps):
        return None
    paddings = _known(attention_mask).paddings
    if steps not in paddings:
        # Tensors made in inference mode could not be used in training later.
        with torch.inference_mode(False):
            mask = attention_mask[:, attention_mask.shape[1] - steps :] != 0
            indices, cu_seqlens, _ = get_unpad_data(mask)
        if indices.numel() == 0:
            raise ValueError(f"attention_mask: no real token among the last {steps} steps")
        paddings[steps] = Padding(indices, cu_seqlens, mask.shape[0], steps)
    return paddings[steps]


def _known(attention_mask: torch.Tensor) -> _Known:
    version = None if attention_mask.is_inference() else attention_mask._version
    known: _Known | None = _KNOWN.get(attention_mask)
    if known is None or known.version != version:
        known = _KNOWN[attention_mask] = _Known(version, _last_padded(attention_mask), {})
    return known


def _last_padded(mask: torch.Tensor) -> int:
    real = mask != 0
    columns = torch.arange(mask.shape[1], device=mask.device)
    facts = torch.stack(((real == mask).all().long(), columns.masked_fill(real.all(0), -1).max()))
    valid, last = facts.tolist()
    if not valid:
        raise ValueError(f"attention_mask: expected 0 and 1 only, got values from {mask.min()} to {mask.max()}")
    return int(last)
