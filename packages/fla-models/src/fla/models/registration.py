"""Makes our models known to transformers' Auto classes, and finds those that these leave to transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES  # type: ignore[attr-defined]

from fla.models.configuration import FLAConfig
from fla.models.modeling import FLAForCausalLM, FLAModel

_TYPES: set[str] = set()
#: Configs and language models of ours whose ``model_type`` transformers has too.
_SHARED_TYPES: dict[str, tuple[type[FLAConfig], type[FLAForCausalLM]]] = {}
#: A key that every config of ours has, and no other.
_OURS = "fuse_cross_entropy"


def register(config: type[FLAConfig], model: type[FLAModel], causal_lm: type[FLAForCausalLM]) -> None:
    """Register a model under its ``model_type``, unless that is one of transformers' own."""
    _TYPES.add(config.model_type)
    if config.model_type in CONFIG_MAPPING_NAMES:
        _SHARED_TYPES[config.model_type] = config, causal_lm
        return
    AutoConfig.register(config.model_type, config, exist_ok=True)
    AutoModel.register(config, model, exist_ok=True)
    AutoModelForCausalLM.register(config, causal_lm, exist_ok=True)


def own_types() -> list[str]:
    """The model types of this library."""
    return sorted(_TYPES)


def config_of_shared_type(model_type: str) -> type[FLAConfig] | None:
    """Our config of a ``model_type`` that is transformers' own as well."""
    return _SHARED_TYPES[model_type][0] if model_type in _SHARED_TYPES else None


def causal_lm_of(config: Mapping[str, Any]) -> type[FLAForCausalLM] | type[AutoModelForCausalLM]:
    """What makes or loads the language model of a config as it stands in ``config.json``."""
    model_type = config.get("model_type", "")
    return _SHARED_TYPES[model_type][1] if model_type in _SHARED_TYPES and is_ours(config) else AutoModelForCausalLM


def is_ours(config: Mapping[str, Any]) -> bool:
    """Whether a config as it stands in ``config.json`` is one of ours."""
    return _OURS in config
