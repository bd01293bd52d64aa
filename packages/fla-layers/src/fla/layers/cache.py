"""The states of layers between calls: the protocol that mixers speak, and a cache for plain loops."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, TypeAlias

import torch

#: A tensor with the sequences in its first dimension, or a tuple of such.
State: TypeAlias = "torch.Tensor | tuple[State | None, ...]"

STATE_NAMES = ("recurrent_state", "attn_state", "conv_state", "ffn_state")


class MixerCache(Protocol):
    """The protocol of a cache. ``fla.models.Cache`` and :class:`StateCache` follow it."""

    def __getitem__(self, layer_idx: int) -> Mapping[str, Any]:
        """The states of one layer by name; empty for a layer that has stored nothing."""

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Number of steps that a layer has seen, padding included."""

    def update(
        self,
        recurrent_state: State | None = None,
        attn_state: tuple[torch.Tensor, torch.Tensor] | None = None,
        conv_state: State | None = None,
        ffn_state: State | None = None,
        layer_idx: int = 0,
        offset: int = 1,
        cache_kwargs: Mapping[str, Any] | None = None,
    ) -> Mapping[str, Any]:
        """Store the states of one layer after ``offset`` more steps; see :meth:`StateCache.update`."""


def map_state(function: Callable[[torch.Tensor], torch.Tensor], state: State) -> State:
    """Apply ``function`` to every tensor of a state."""
    if isinstance(state, torch.Tensor):
        return function(state)
    return tuple(None if item is None else map_state(function, item) for item in state)


def check_rows(states: Mapping[str, Any], rows: int) -> None:
    """Raise ValueError unless the states of a layer are those of so many sequences."""
    for name, state in states.items():
        # The tensors of a state are written together, so one is enough: this runs for every layer and step.
        first = state
        while isinstance(first, tuple):
            first = first[0]
        if first is not None and first.shape[0] != rows:
            raise ValueError(
                f"past_key_values: expected states of as many sequences as the call has, which are {rows}, got {name} "
                f"of {first.shape[0]}"
            )


def tensors_of(state: State) -> list[torch.Tensor]:
    """Every tensor of a state, in order."""
    if isinstance(state, torch.Tensor):
        return [state]
    return [tensor for item in state if item is not None for tensor in tensors_of(item)]


def extend_keys(
    past: tuple[torch.Tensor, torch.Tensor] | None, new: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values ``[B, L, H, D]`` of the past followed by new ones."""
    if past is None:
        return new
    return torch.cat((past[0], new[0]), 1), torch.cat((past[1], new[1]), 1)


class LayerState(dict[str, Any]):
    """The states of one layer by name, and how many steps it has seen.

    The names are ``recurrent_state``, ``attn_state``, ``conv_state`` and ``ffn_state``; asking for one that was
    never stored gives None. Every tensor has the sequences in its first dimension.
    """

    is_compileable = False
    is_sliding = False
    supports_early_init = False

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def __missing__(self, name: str) -> None:
        return None

    def get_seq_length(self) -> int:
        """Number of steps seen, with padding and those that a window has dropped."""
        return self.seen

    def get_max_length(self) -> int:
        """The limit of the length: -1, for none."""
        return -1

    get_max_cache_shape = get_max_length

    @property
    def is_initialized(self) -> bool:
        """Whether anything has been stored."""
        return self.seen > 0

    @property
    def is_croppable(self) -> bool:
        """Whether the last steps can be taken back: keys and values can, if no window has dropped any."""
        return set(self) <= {"attn_state"} and (not self or self["attn_state"][0].shape[1] == self.seen)

    def extend(self, keys: torch.Tensor, values: torch.Tensor, window_size: int | None) -> LayerState:
        """Append keys and values and return what the new steps may see; only the window is kept."""
        visible = extend_keys(self["attn_state"], (keys, values))
        # A query sees itself too, so a window needs one step less of the past.
        kept = visible[0].shape[1] if window_size is None else min(window_size - 1, visible[0].shape[1])
        start = visible[0].shape[1] - kept
        self["attn_state"] = visible if start == 0 else (visible[0][:, start:].clone(), visible[1][:, start:].clone())
        seen_now = LayerState()
        seen_now.update(self)
        seen_now["attn_state"] = visible
        return seen_now

    def crop(self, tokens: int) -> None:
        """Take the last steps back: ``-tokens`` of them, or all but the first ``tokens`` where that is positive.

        Raises:
            ValueError: the layer keeps no history to go back to.
        """
        tokens = int(tokens)  # generate counts with a tensor
        removed = -tokens if tokens <= 0 else max(self.seen - tokens, 0)
        if removed == 0 or self.seen == 0:
            return
        if not self.is_croppable:
            raise ValueError(
                "this cache cannot be cropped: a recurrent state, or a window that has dropped keys, keeps no history"
            )
        keys, values = self["attn_state"]
        self.seen -= removed
        self["attn_state"] = (keys[:, : self.seen].clone(), values[:, : self.seen].clone())

    def reset(self) -> None:
        """Forget everything."""
        self.clear()
        self.seen = 0

    def apply(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Replace every tensor by the result of ``function``."""
        for name, state in self.items():
            self[name] = map_state(function, state)

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Let row i continue what row ``beam_idx[i]`` was."""
        self.apply(lambda x: x.index_select(0, beam_idx.to(x.device)))

    batch_select_indices = reorder_cache

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row ``repeats`` times."""
        self.apply(lambda x: x.repeat_interleave(repeats, 0))


class StateCache:
    """A cache for plain loops: the states of every layer, made as layers ask for them.

    Example::

        cache = StateCache()
        for piece in x.split(1, dim=1):
            o, _, cache = layer(piece, past_key_values=cache, use_cache=True)
    """

    def __init__(self) -> None:
        self.layers: list[LayerState] = []

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[LayerState]:
        return iter(self.layers)

    def __getitem__(self, layer_idx: int) -> LayerState:
        while layer_idx >= len(self.layers):
            self.layers.append(LayerState())
        return self.layers[layer_idx]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Number of steps that a layer has seen, padding included."""
        return self.layers[layer_idx].seen if layer_idx < len(self.layers) else 0

    def update(
        self,
        recurrent_state: State | None = None,
        attn_state: tuple[torch.Tensor, torch.Tensor] | None = None,
        conv_state: State | None = None,
        ffn_state: State | None = None,
        layer_idx: int = 0,
        offset: int = 1,
        cache_kwargs: Mapping[str, Any] | None = None,
    ) -> LayerState:
        """Store the states of one layer after ``offset`` more steps.

        Args:
            recurrent_state: replaces the one stored, as do ``conv_state`` and ``ffn_state``.
            attn_state: keys and values ``[B, T, H, D]`` of the new steps, appended to those stored.
            conv_state: see ``recurrent_state``.
            ffn_state: see ``recurrent_state``.
            layer_idx: the layer.
            offset: new steps, padding included; 0 where another update of the same steps counts them.
            cache_kwargs: ``window_size`` is the number of keys, its own included, that a query sees.

        Returns:
            The states of the layer; its ``attn_state`` holds all keys and values that the new steps may see.

        Raises:
            ValueError: an unknown key in ``cache_kwargs``.
        """
        options = dict(cache_kwargs or {})
        window_size = options.pop("window_size", None)
        if options:
            raise ValueError(f"cache_kwargs: expected window_size, got {', '.join(options)}")
        state = self[layer_idx]
        visible = state if attn_state is None else state.extend(*attn_state, window_size)
        replaced = {"recurrent_state": recurrent_state, "conv_state": conv_state, "ffn_state": ffn_state}
        for name, value in replaced.items():
            if value is not None:
                state[name] = value
        state.seen += offset
        return visible

    def reset(self) -> None:
        """Forget everything."""
        for layer in self.layers:
            layer.reset()
