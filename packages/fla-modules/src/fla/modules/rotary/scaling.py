"""Scaling of rotary frequencies for contexts longer than those of training, as in ``rope_scaling`` of checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

#: Types whose frequencies follow the length of a call: keys in a cache would have been turned by other angles.
_BY_LENGTH = ("dynamic", "longrope", "su")
_TYPE_KEYS = ("rope_type", "type")


class RopeScaling:
    """One ``rope_scaling``: frequencies from those of plain rotary embeddings, and a factor on cosines and sines.

    Args:
        scaling: the mapping, its kind under ``rope_type`` or ``type``: ``"default"``; ``"linear"`` (``factor``);
            ``"llama3"`` (``factor``, ``low_freq_factor``, ``high_freq_factor``,
            ``original_max_position_embeddings``); ``"yarn"`` (arXiv 2309.00071: ``factor``,
            ``original_max_position_embeddings``, and, optional, ``beta_fast``, ``beta_slow``, ``mscale``,
            ``mscale_all_dim``, ``attention_factor``, ``truncate``). None is ``"default"``.
        base: of the plain frequencies; a ``rope_theta`` in the mapping must agree with it.

    Raises:
        TypeError: not a mapping.
        ValueError: an unknown kind, an unknown or missing key, or a value that is out of range.
    """

    def __init__(self, scaling: Mapping[str, Any] | None, base: float) -> None:
        if not isinstance(scaling, Mapping | None):
            raise TypeError(f"scaling: expected a dict or None, got {type(scaling).__name__}")
        given = {"rope_type": "default"} if scaling is None else dict(scaling)
        self.kind = _kind_of(given)
        # A null in a config is a key that is not there.
        self.options = {key: value for key, value in given.items() if key not in _TYPE_KEYS and value is not None}
        self.base = base
        _check(self.kind, self.options, base)

    def scale(self, frequencies: torch.Tensor) -> torch.Tensor:
        """The frequencies ``[R / 2]`` float32 for the plain ones."""
        return _KINDS[self.kind].scale(frequencies, self.base, self.options)

    @property
    def factor(self) -> float:
        """What cosines and sines are multiplied by."""
        return _yarn_factor(self.options) if self.kind == "yarn" else 1.0


def yarn_mscale(factor: float, mscale: float = 1.0) -> float:
    """What YaRN multiplies queries and keys by: ``0.1 * mscale * log(factor) + 1``, and 1 up to a factor of 1."""
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def _plain(frequencies: torch.Tensor, base: float, options: Mapping[str, Any]) -> torch.Tensor:
    return frequencies


def _divided(frequencies: torch.Tensor, options: Mapping[str, Any]) -> torch.Tensor:
    factor: float = options["factor"]
    return frequencies / factor


def _linear(frequencies: torch.Tensor, base: float, options: Mapping[str, Any]) -> torch.Tensor:
    return _divided(frequencies, options)


def _llama3(frequencies: torch.Tensor, base: float, options: Mapping[str, Any]) -> torch.Tensor:
    """Divide the frequencies that turn seldom within the context of training; go from one to the other smoothly."""
    low: float = options["low_freq_factor"]
    high: float = options["high_freq_factor"]
    context: int = options["original_max_position_embeddings"]
    turns = context * frequencies / (2 * math.pi)
    share = ((turns - low) / (high - low)).clamp(0, 1)
    return _divided(frequencies, options) * (1 - share) + frequencies * share


def _yarn(frequencies: torch.Tensor, base: float, options: Mapping[str, Any]) -> torch.Tensor:
    """Divide the frequencies that turn less than beta_slow times, keep those that turn more than beta_fast times."""
    half = frequencies.shape[0]

    def channel_that_turns(times: float) -> float:
        return half * math.log(options["original_max_position_embeddings"] / (times * 2 * math.pi)) / math.log(base)

    # Zero counts as not given, as it does where these checkpoints come from.
    first = channel_that_turns(options.get("beta_fast") or 32)
    last = channel_that_turns(options.get("beta_slow") or 1)
    if options.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * half - 1)
    width = last - first if last != first else 0.001
    channel = torch.arange(half, dtype=torch.float32, device=frequencies.device)
    share = ((channel - first) / width).clamp(0, 1)
    return _divided(frequencies, options) * share + frequencies * (1 - share)


def _yarn_factor(options: Mapping[str, Any]) -> float:
    if "attention_factor" in options:
        return float(options["attention_factor"])
    mscale, mscale_all_dim = options.get("mscale"), options.get("mscale_all_dim")
    if mscale and mscale_all_dim:
        return yarn_mscale(options["factor"], mscale) / yarn_mscale(options["factor"], mscale_all_dim)
    return yarn_mscale(options["factor"])


class _Kind(NamedTuple):
    scale: Callable[[torch.Tensor, float, Mapping[str, Any]], torch.Tensor]
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


_KINDS = {
    "default": _Kind(_plain),
    "linear": _Kind(_linear, ("factor",)),
    "llama3": _Kind(_llama3, ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")),
    "yarn": _Kind(
        _yarn,
        ("factor", "original_max_position_embeddings"),
        ("beta_fast", "beta_slow", "mscale", "mscale_all_dim", "attention_factor", "truncate"),
    ),
}


def _kind_of(scaling: Mapping[str, Any]) -> str:
    kinds = {scaling[key] for key in _TYPE_KEYS if scaling.get(key) is not None}
    if len(kinds) != 1:
        raise ValueError(f"scaling: expected one rope_type of {', '.join(_KINDS)}, got {scaling}")
    (kind,) = kinds
    if kind in _BY_LENGTH:
        raise ValueError(
            f"scaling: rope_type {kind!r} makes the frequencies follow the length of each call, so that the keys of a "
            f"cache and those of packed sequences would not agree with one another; expected one of {', '.join(_KINDS)}"
        )
    if kind not in _KINDS:
        raise ValueError(f"scaling: expected a rope_type of {', '.join(_KINDS)}, got {kind!r}")
    return str(kind)


def _check(kind: str, options: Mapping[str, Any], base: float) -> None:
    _, required, optional = _KINDS[kind]
    if missing := [key for key in required if key not in options]:
        raise ValueError(f"scaling: rope_type {kind!r} needs {', '.join(required)}, got no {', '.join(missing)}")
    if unknown := options.keys() - {*required, *optional, "rope_theta"}:
        known = ", ".join((*required, *optional)) or "no other keys"
        raise ValueError(f"scaling: rope_type {kind!r} takes {known}, got {', '.join(sorted(unknown))}")
    numbers = {key: value for key, value in options.items() if key != "truncate"}
    for key, value in numbers.items():
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or value < 0
            or (key in required and not value)
        ):
            raise ValueError(f"scaling: expected a number above 0 for {key}, got {value!r}")
    if options.get("rope_theta", base) != base:
        raise ValueError(f"scaling: expected rope_theta to be the base {base}, got {options['rope_theta']}")
    if kind == "llama3" and options["high_freq_factor"] <= options["low_freq_factor"]:
        raise ValueError(
            f"scaling: expected high_freq_factor above low_freq_factor={options['low_freq_factor']}, "
            f"got {options['high_freq_factor']}"
        )
