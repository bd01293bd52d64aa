"""Hybrids: which layers are softmax attention instead of the model's own mixer, and of what kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

REQUIRED = ("layers", "num_heads")
DEFAULTS = {"num_kv_heads": None, "qkv_bias": False, "window_size": None, "rope_theta": 10000.0}


def normalise_attn(attn: Any, num_hidden_layers: int) -> dict[str, Any] | list[dict[str, Any]] | None:
    """The ``attn`` of a config with its defaults filled in.

    Args:
        attn: None, one mapping or several. ``layers`` are the indices of the layers, ``num_heads`` their heads;
            ``num_kv_heads``, ``qkv_bias``, ``window_size`` and ``rope_theta`` are options of
            :class:`fla.layers.Attention`.
        num_hidden_layers: of the model.

    Raises:
        TypeError: not a mapping or a list of them.
        ValueError: an unknown or missing key, a layer that does not exist, or one that is listed twice.
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


def attention_of(attn: dict[str, Any] | list[dict[str, Any]] | None, layer_idx: int) -> dict[str, Any] | None:
    """The arguments of a layer's :class:`fla.layers.Attention`, None where it is the model's own mixer."""
    for spec in [] if attn is None else [attn] if isinstance(attn, dict) else attn:
        if layer_idx in spec["layers"]:
            return {name: value for name, value in spec.items() if name != "layers"}
    return None


def _as_list(attn: Any) -> Sequence[Any]:
    if not isinstance(attn, Sequence) or isinstance(attn, str):
        raise TypeError(f"attn: expected None, a dict or a list of dicts, got {type(attn).__name__}")
    return attn


def _normalise_spec(spec: Any, num_hidden_layers: int) -> dict[str, Any]:
    if not isinstance(spec, Mapping):
        raise TypeError(f"attn: expected a dict for each kind of attention, got {type(spec).__name__}")
    allowed = (*REQUIRED, *DEFAULTS)
    if unknown := [key for key in spec if key not in allowed]:
        raise ValueError(f"attn: expected keys {', '.join(allowed)}, got {', '.join(map(str, unknown))} as well")
    if missing := [key for key in REQUIRED if key not in spec]:
        raise ValueError(f"attn: expected {' and '.join(missing)}, got {', '.join(map(str, spec))} only")
    layers = list(spec["layers"])
    if wrong := [layer for layer in layers if not (isinstance(layer, int) and 0 <= layer < num_hidden_layers)]:
        raise ValueError(f"attn: expected layers from 0 to {num_hidden_layers - 1}, got {wrong}")
    filled = {**DEFAULTS, **spec, "layers": layers}
    if filled["num_kv_heads"] is None:
        filled["num_kv_heads"] = filled["num_heads"]
    return filled
