"""Hybrids: which layers have another mixer than the model's own, and with what options."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import fla.layers
from fla.layers import Mixer

#: Filled in where the mixer is softmax attention, as existing checkpoints have it.
ATTENTION_DEFAULTS = {"num_kv_heads": None, "qkv_bias": False, "window_size": None, "rope_theta": 10000.0}
_ATTENTION = "Attention"
#: Mixers that keep all they have seen.
_ROLLED_BACK = (_ATTENTION, "MultiheadLatentAttention", "BitAttention")
#: Arguments of mixers that are those of the model.
FROM_MODEL = ("hidden_size", "max_position_embeddings", "num_hidden_layers")
#: Keys of an entry that are no options of its mixer.
_OF_ENTRY = ("layers", "mixer")


def normalise_attn(attn: Any, num_hidden_layers: int) -> dict[str, Any] | list[dict[str, Any]] | None:
    """The ``attn`` of a config with its defaults filled in.

    Args:
        attn: None, one mapping or several. ``layers`` are the indices of the layers, ``mixer`` the name of a class of
            ``fla.layers``, ``"Attention"`` unless given; all other keys are arguments of that class. Attention needs
            ``num_heads``.
        num_hidden_layers: layers of the model.

    Raises:
        TypeError: not a mapping or a list of them.
        ValueError: an unknown mixer, an unknown or missing key, a layer that does not exist, or one that is listed
            twice.
    """
    if attn is None:
        return None
    one = isinstance(attn, Mapping)
    specs = [_normalise_spec(spec, num_hidden_layers) for spec in ([attn] if one else _as_list(attn))]
    listed = [layer for spec in specs for layer in spec["layers"]]
    twice = sorted({layer for layer in listed if listed.count(layer) > 1})
    if twice:
        raise ValueError(f"attn: a layer may be listed once only, got layers {twice} more than once")
    return specs[0] if one else specs


def mixer_of(
    attn: dict[str, Any] | list[dict[str, Any]] | None, layer_idx: int
) -> tuple[type[Mixer], dict[str, Any]] | None:
    """The mixer's class that ``attn`` gives a layer, and its options; None where it is the model's own mixer."""
    for spec in [] if attn is None else [attn] if isinstance(attn, dict) else attn:
        if layer_idx in spec["layers"]:
            mixer = _mixer_class(spec.get("mixer", _ATTENTION))
            return mixer, {name: value for name, value in spec.items() if name not in _OF_ENTRY}
    return None


def has_recurrent_mixer(attn: dict[str, Any] | list[dict[str, Any]] | None) -> bool:
    """Whether ``attn`` gives any layer a mixer whose state cannot be rolled back."""
    specs = [] if attn is None else [attn] if isinstance(attn, dict) else attn
    return any(spec.get("mixer", _ATTENTION) not in _ROLLED_BACK for spec in specs)


def _as_list(attn: Any) -> Sequence[Any]:
    if not isinstance(attn, Sequence) or isinstance(attn, str):
        raise TypeError(f"attn: expected None, a dict or a list of dicts, got {type(attn).__name__}")
    return attn


def _mixer_class(name: Any) -> type[Mixer]:
    mixer = getattr(fla.layers, name) if name in fla.layers.__all__ else None
    if not (isinstance(mixer, type) and issubclass(mixer, Mixer) and mixer is not Mixer and mixer.counts_steps):
        raise ValueError(f"attn: expected mixer to be the name of a token mixer of fla.layers, got {name!r}")
    return mixer


def _normalise_spec(spec: Any, num_hidden_layers: int) -> dict[str, Any]:
    if not isinstance(spec, Mapping):
        raise TypeError(f"attn: expected a dict for each kind of attention, got {type(spec).__name__}")
    name = spec.get("mixer", _ATTENTION)
    options = [key for key in inspect.signature(_mixer_class(name)).parameters if key not in (*FROM_MODEL, "layer_idx")]
    allowed = (*_OF_ENTRY, *options)
    if unknown := [key for key in spec if key not in allowed]:
        raise ValueError(f"attn: expected keys {', '.join(allowed)}, got {', '.join(map(str, unknown))} as well")
    required = ("layers", "num_heads") if name == _ATTENTION else ("layers",)
    if missing := [key for key in required if key not in spec]:
        raise ValueError(f"attn: expected {' and '.join(missing)}, got {', '.join(map(str, spec))} only")
    layers = list(spec["layers"])
    if wrong := [layer for layer in layers if not (isinstance(layer, int) and 0 <= layer < num_hidden_layers)]:
        raise ValueError(f"attn: expected layers from 0 to {num_hidden_layers - 1}, got {wrong}")
    if name != _ATTENTION:
        return {**spec, "layers": layers}
    filled = {**ATTENTION_DEFAULTS, **spec, "layers": layers}
    if filled["num_kv_heads"] is None:
        filled["num_kv_heads"] = filled["num_heads"]
    return filled
