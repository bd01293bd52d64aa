"""Padded batches as packed sequences and back, and access to a cache for layers written elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F

from fla.layers.cache import MixerCache


class _Layer(Protocol):
    """A layer as it is in models: with a place in the cache."""

    @property
    def layer_idx(self) -> int | None: ...


def get_unpad_data(attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Positions of the real tokens of a padded batch. Waits for the device.

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
        ValueError: the mask holds values other than 0 and 1, or no real token in these columns.
    """
    if cu_seqlens is not None or attention_mask is None:
        return hidden_states, None, cu_seqlens
    padding = read_mask(attention_mask, q_len).padding(q_len)
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
    """Positions of the real tokens of a padded batch; see :func:`get_unpad_data`."""

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


class ReadMask:
    """A padding mask, and the facts read of it from the device; made by :func:`read_mask`.

    A model makes one for each call and hands it to every layer as ``attention_mask``, so that the layers share two
    readings: one for whether there is padding, and one more, where there is, for where it lies. Nothing is kept
    beyond the call. The mask must not be written to while one is in use.

    Attributes:
        tensor: the mask ``[B, L]``, L the steps before and the new ones.
        steps: new steps.
        last_padded: the last column with padding in any row, -1 if there is none.
    """

    def __init__(self, tensor: torch.Tensor, steps: int, last_padded: int) -> None:
        self.tensor, self.steps, self.last_padded = tensor, steps, last_padded
        # One entry once it is read, in a list that copies on other devices share.
        self._layouts: list[_Layout] = []
        self._paddings: dict[int, Padding] = {}

    @property
    def length(self) -> int:
        """L: the steps before and the new ones."""
        return self.tensor.shape[1]

    def has_padding(self, columns: int) -> bool:
        """Whether there is padding among the last so many columns."""
        return self.last_padded >= self.length - columns

    def padding(self, columns: int) -> Padding | None:
        """The padding among the last so many columns, None if there is none.

        Raises:
            ValueError: no real token in these columns.
        """
        if not self.has_padding(columns):
            return None
        if columns not in self._paddings:
            total = int(self._read_layout().real_tokens[columns - 1])
            if total == 0:
                raise ValueError(f"attention_mask: no real token among the last {columns} steps")
            self._paddings[columns] = _find_padding(self.tensor, columns, total)
        return self._paddings[columns]

    def has_hole(self, kept: int) -> bool:
        """Whether the last ``kept`` columns before the new ones do not hold the last ``kept`` tokens of a row.

        They do not where a row has padding in them, a token before them and another among the new steps.
        """
        before = self.length - self.steps
        if kept >= before or not self.has_padding(kept + self.steps):
            return False
        layout = self._read_layout()
        return bool(((layout.first_token < before - kept) & (layout.last_padding >= before - kept)).any())

    def to(self, device: torch.device | str | int, non_blocking: bool = False) -> ReadMask:
        """Return the mask on another device, where it is not read again."""
        tensor = self.tensor.to(device, non_blocking=non_blocking)
        if tensor is self.tensor:
            return self
        moved = ReadMask(tensor, self.steps, self.last_padded)
        moved._layouts = self._layouts
        moved._paddings = {
            columns: padding._replace(
                indices=padding.indices.to(device, non_blocking=non_blocking),
                cu_seqlens=padding.cu_seqlens.to(device, non_blocking=non_blocking),
            )
            for columns, padding in self._paddings.items()
        }
        return moved

    def _read_layout(self) -> _Layout:
        if not self._layouts:
            self._layouts.append(_read_layout(self.tensor, self.steps))
        return self._layouts[0]


class _Layout(NamedTuple):
    """Layout of the padding of a mask, on the host."""

    real_tokens: torch.Tensor
    """``[L]``: number of tokens of all rows in the last column, the last two, and so on."""
    first_token: torch.Tensor
    """``[B]``: the column of the first token of a row that goes on among the new steps; of others L."""
    last_padding: torch.Tensor
    """``[B]``: the last column with padding before the new steps, -1 if there is none."""


def read_mask(attention_mask: torch.Tensor | ReadMask, steps: int) -> ReadMask:
    """Read whether a mask has padding; waits for the device, unless that has been read already.

    Args:
        attention_mask: ``[B, L]``, 1 for a real token and 0 for padding, or what this function made of one.
        steps: new steps, which are the last columns.

    Raises:
        ValueError: values other than 0 and 1, or a mask that was read for another number of steps.
    """
    if isinstance(attention_mask, ReadMask):
        if attention_mask.steps != steps:
            raise ValueError(
                f"attention_mask: expected one that was read for {steps} steps, got {attention_mask.steps}"
            )
        return attention_mask
    real = attention_mask != 0
    columns = torch.arange(real.shape[1], device=real.device)
    facts = torch.stack(((real == attention_mask).all().long(), columns.masked_fill(real.all(0), -1).max()))
    valid, last_padded = facts.tolist()
    if not valid:
        raise ValueError(
            f"attention_mask: expected 0 and 1 only, got values from {attention_mask.min()} to {attention_mask.max()}"
        )
    return ReadMask(attention_mask, steps, last_padded)


def _read_layout(mask: torch.Tensor, steps: int) -> _Layout:
    """Read all that the layers ask of a mask with padding at once."""
    real = mask != 0
    rows, length = real.shape
    before, columns = length - steps, torch.arange(length, device=real.device)
    first = columns.masked_fill(~real, length).amin(1).masked_fill(~real[:, before:].any(1), length)
    last = columns.masked_fill(real, -1)[:, :before].amax(1) if before else first.new_full((rows,), -1)
    read = torch.cat((real.sum(0).flip(0).cumsum(0), first, last)).cpu()
    return _Layout(*read.split((length, rows, rows)))


def _find_padding(mask: torch.Tensor, columns: int, total: int) -> Padding:
    """The padding among the last columns, which hold ``total`` tokens; does not wait for the device."""
    real = mask[:, mask.shape[1] - columns :] != 0
    places = torch.arange(real.numel(), device=real.device)
    indices = places.repeat_interleave(real.flatten().long(), output_size=total)
    cu_seqlens = F.pad(real.sum(-1, dtype=torch.int32).cumsum(0, dtype=torch.int32), (1, 0))
    return Padding(indices, cu_seqlens, mask.shape[0], columns)
