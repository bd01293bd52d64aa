"""Makes our models known to transformers, and finds those whose ``model_type`` is one of transformers' own too.

transformers keeps its ``mamba``, ``mamba2`` and ``bitnet``: its checkpoints load through the Auto classes as if we were
not there. Ours have other layers and other keys, and would load there as something else. So our files say
``fla_mamba`` and so on, which the Auto classes find here, and nothing where ``fla.models`` is not imported. Files of
ours and of flash-linear-attention that say ``mamba`` load through the class (``MambaForCausalLM.from_pretrained``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import CONFIG_MAPPING, AutoModel, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from fla.models.base.configuration import FLAConfig
from fla.models.base.modeling import FLAForCausalLM, FLAModel

_TYPES: set[str] = set()
#: Configs and language models of ours whose ``model_type`` transformers has too.
_SHARED_TYPES: dict[str, tuple[type[FLAConfig], type[FLAForCausalLM]]] = {}
#: A key that every config of ours has, and no other.
_OURS = "fuse_cross_entropy"


def register(config: type[FLAConfig], model: type[FLAModel], causal_lm: type[FLAForCausalLM]) -> None:
    """Register a model under the type that its files have, :meth:`FLAConfig.saved_type`."""
    _TYPES.add(config.model_type)
    saved = config.saved_type()
    if saved != config.model_type:
        _SHARED_TYPES[config.model_type] = config, causal_lm
    # AutoConfig would want the class to have this type.
    CONFIG_MAPPING.register(saved, config, exist_ok=True)
    AutoModel.register(config, model, exist_ok=True)
    AutoModelForCausalLM.register(config, causal_lm, exist_ok=True)
    # The Trainer shifts labels that it smooths, and pipelines and servers know what it does, by the name of the class.
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[saved] = causal_lm.__name__


def own_types() -> list[str]:
    """The model types of this library."""
    return sorted(_TYPES)


def own_type(config: Mapping[str, Any]) -> str:
    """The model type of a config of ours as it stands in ``config.json``."""
    saved = {shared.saved_type(): model_type for model_type, (shared, _) in _SHARED_TYPES.items()}
    return saved.get(config["model_type"], str(config["model_type"]))


def config_of_shared_type(model_type: str) -> type[FLAConfig] | None:
    """Our config of a ``model_type`` that is transformers' own as well."""
    return _SHARED_TYPES[model_type][0] if model_type in _SHARED_TYPES else None


def causal_lm_of(config: Mapping[str, Any]) -> type[FLAForCausalLM] | type[AutoModelForCausalLM]:
    """The class that loads the language model of a config as it stands in ``config.json``."""
    model_type = config.get("model_type", "")
    return _SHARED_TYPES[model_type][1] if model_type in _SHARED_TYPES and is_ours(config) else AutoModelForCausalLM


def is_ours(config: Mapping[str, Any]) -> bool:
    """Whether a config as it stands in ``config.json`` is one of ours."""
    return _OURS in config
