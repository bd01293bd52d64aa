"""Gradient checkpointing of a block that reads and writes a cache.

A checkpointed block runs twice, and the second run must see what the first one saw. So the states of its layer go in
as values and come out as values: each run works on a cache of its own, and the caller writes the model's cache once.
All of them are positional arguments and results, because reentrant checkpointing differentiates no others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from fla.layers.cache import LayerState, State, StateCache, map_state, tensors_of

Results = tuple[torch.Tensor | None, ...]


class _OneLayer(StateCache):
    """A cache of one layer, whatever index it is asked for."""

    def __init__(self, layer: LayerState) -> None:
        super().__init__()
        self.layers = [layer]

    def __getitem__(self, layer_idx: int) -> LayerState:
        return self.layers[0]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Number of steps that the layer has seen, padding included."""
        return self.layers[0].seen


def run_checkpointed(
    checkpoint: Callable[..., Results],
    block: Callable[..., Results],
    layer: LayerState,
    arguments: Results,
    call: Mapping[str, Any],
) -> Results:
    """The results of ``block(*arguments, past_key_values=..., **call)``, whose activations are made again backward.

    Args:
        checkpoint: ``torch.utils.checkpoint.checkpoint`` with its options.
        block: writes no other state than that of its layer.
        layer: its states in the cache; replaced by the states after the call if that has ``use_cache``.
        arguments: positional arguments.
        call: keyword arguments.
    """
    before, seen = dict(layer), layer.seen
    count = len(arguments)
    runs: list[LayerState] = []

    def run(*values: torch.Tensor | None) -> Results:
        own = LayerState()
        own.update(_filled(before, values[count:]))
        own.seen = seen
        if own["conv_state"] is not None and not torch.is_grad_enabled():
            # Decoding updates it in place.
            own["conv_state"] = map_state(torch.clone, own["conv_state"])
        results = block(*values[:count], past_key_values=_OneLayer(own), **call)
        runs.append(own)
        return (*results, *_tensors(own)) if call["use_cache"] else results

    results = checkpoint(run, *arguments, *_tensors(before))
    if not call["use_cache"]:
        return results
    after = runs[0]
    kept = len(results) - len(_tensors(after))
    layer.update(_filled(after, results[kept:]))
    layer.seen = after.seen
    return results[:kept]


def _tensors(states: Mapping[str, State]) -> list[torch.Tensor]:
    return [tensor for state in states.values() for tensor in tensors_of(state)]


def _filled(states: Mapping[str, State], tensors: Iterable[torch.Tensor | None]) -> dict[str, State]:
    """States of the same form, of these tensors."""
    rest = iter(tensors)

    def following(_: torch.Tensor) -> torch.Tensor:
        tensor = next(rest)
        assert tensor is not None
        return tensor

    return {name: map_state(following, state) for name, state in states.items()}
