"""Padded batches as packed sequences, and back."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch.utils.weak import WeakTensorKeyDictionary


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
    hidden_states: torch.Tensor, attention_mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int, torch.Tensor]:
    """The real tokens of a padded batch, packed.

    Args:
        hidden_states: ``[B, T, ...]``.
        attention_mask: ``[B, T]``, 1 for a real token and 0 for padding.

    Returns:
        ``(packed, indices, cu_seqlens, max_seqlen, lengths)``: the tokens ``[total, ...]``, the results of
        :func:`get_unpad_data`, and the number of real tokens of each row, int32 ``[B]``.
    """
    indices, cu_seqlens, max_seqlen = get_unpad_data(attention_mask)
    return index_first_axis(hidden_states.flatten(0, 1), indices), indices, cu_seqlens, max_seqlen, cu_seqlens.diff()


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
