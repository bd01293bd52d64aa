"""Makes our models known to transformers' Auto classes."""

from __future__ import annotations

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES  # type: ignore[attr-defined]

from fla.models.configuration import FLAConfig
from fla.models.modeling import FLAForCausalLM, FLAModel


def register(config: type[FLAConfig], model: type[FLAModel], causal_lm: type[FLAForCausalLM]) -> None:
    """Register a model under its ``model_type``, unless that is one of transformers' own."""
    if config.model_type in CONFIG_MAPPING_NAMES:
        return
    AutoConfig.register(config.model_type, config, exist_ok=True)
    AutoModel.register(config, model, exist_ok=True)
    AutoModelForCausalLM.register(config, causal_lm, exist_ok=True)
