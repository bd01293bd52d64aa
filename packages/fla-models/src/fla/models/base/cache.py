"""The cache of our models: that of the layers, with what transformers asks of a cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from typing import Any, Final

import transformers
from transformers.modeling_outputs import CausalLMOutputWithPast

from fla.layers.cache import StateCache

#: Name of the cache in the outputs of this release of transformers, and in its calls of a model.
CACHE_NAME: Final = (
    "cache" if "cache" in {field.name for field in fields(CausalLMOutputWithPast)} else "past_key_values"
)


def takes_cache(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Let a forward pass that takes ``past_key_values`` take them as ``cache`` too, as later transformers call it."""

    @wraps(forward)
    def forward_with_cache(*args: Any, **kwargs: Any) -> Any:
        if "cache" in kwargs:
            if "past_key_values" in kwargs:
                raise TypeError("cache, past_key_values: two names of one argument; give one of them")
            kwargs["past_key_values"] = kwargs.pop("cache")
        return forward(*args, **kwargs)

    return forward_with_cache


class Cache(StateCache, transformers.Cache):  # type: ignore[misc]  # update takes states by name
    """Recurrent, convolution and attention states of all layers, for ``generate`` and for loops alike.

    Any mix of layers keeps its length right, can be reordered (beams), repeated and selected by row. Keys and
    values can be cropped; where a layer keeps a recurrent state, cropping raises ValueError.
    """

    def __init__(self) -> None:
        transformers.Cache.__init__(self, layers=[])

    @property
    def is_linear(self) -> list[bool]:
        """False for the cache as a whole: ``generate`` may ask for its length."""
        return [False]

    def has_previous_state(self, layer_idx: int | None = None, state_idx: int | None = None) -> bool:
        """Whether a layer, the first unless told, has seen anything."""
        return self.get_seq_length(layer_idx or 0) > 0

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """The columns of a mask for ``query_length`` new steps, and where they start: 0."""
        return self.get_seq_length(layer_idx) + query_length, 0

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """The limit of the length: -1, for none."""
        return -1
