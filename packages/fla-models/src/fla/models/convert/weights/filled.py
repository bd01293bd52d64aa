"""Models around weights that are there already, and the complaint where the two do not fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from transformers import PreTrainedConfig, PreTrainedModel

Weights = Mapping[str, torch.Tensor]
AnyConfig = TypeVar("AnyConfig", bound=PreTrainedConfig)
AnyModel = TypeVar("AnyModel", bound=PreTrainedModel)


@dataclass(frozen=True)
class Converted(Generic[AnyConfig]):
    """A config, and weights by the names that its model has for them."""

    config: AnyConfig
    weights: dict[str, torch.Tensor]


def hollow(model_class: type[AnyModel], config: PreTrainedConfig) -> AnyModel:
    """A model whose weights take no memory and have no values."""
    with torch.device("meta"):
        return model_class(config).eval()  # type: ignore[no-any-return, no-untyped-call]


def around(model_class: type[AnyModel], converted: Converted[AnyConfig]) -> AnyModel:
    """Make one of our models around these very weights, which may lie in a file still.

    Raises:
        ValueError: weights that are missing, unknown or of another shape.
    """
    return _with_weights(hollow(model_class, converted.config), converted.weights)


def filled(model_class: type[AnyModel], converted: Converted[AnyConfig]) -> AnyModel:
    """Make anybody's model with copies of these weights, each in its own dtype; see :func:`around`."""
    copies = {name: tensor.detach().clone() for name, tensor in converted.weights.items()}
    model = _with_weights(model_class(converted.config).eval(), copies)  # type: ignore[no-untyped-call]
    # Transformers' models have tables of their own, which stay in float32.
    return model.to(device=next(iter(copies.values())).device)  # type: ignore[no-any-return]


def _with_weights(model: AnyModel, weights: Weights) -> AnyModel:
    _check(model.state_dict(), weights)
    model.load_state_dict(weights, assign=True)
    model.tie_weights()
    return model


def _check(expected: Weights, got: Weights) -> None:
    if missing := [name for name in expected if name not in got]:
        raise ValueError(f"weights: expected {_some(missing)} as well")
    if unknown := [name for name in got if name not in expected]:
        raise ValueError(f"weights: there is no place for {_some(unknown)}")
    for name, tensor in got.items():
        if tensor.shape != expected[name].shape:
            raise ValueError(
                f"weights: expected shape {list(expected[name].shape)} for {name}, got {list(tensor.shape)}"
            )


def _some(names: Iterable[str]) -> str:
    first, *others = names
    return f"{first} and {len(others)} more" if others else first
