"""Gated slot attention (arXiv 2409.07146) as a language model."""

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict

from fla.layers import GatedSlotAttention
from fla.models.base.configuration import FLAConfig
from fla.models.base.modeling import FLAForCausalLM, FLAModel
from fla.models.base.registration import register


@strict
class GSAConfig(FLAConfig):
    """The config of :class:`GSAForCausalLM`.

    Keys that :class:`FLAConfig` does not have are arguments of :class:`fla.layers.GatedSlotAttention`. ``clamp_min``
    and ``clamp_max`` must keep their defaults.
    """

    model_type = "gsa"
    attribute_map: ClassVar[dict[str, str]] = {"exapnd_k": "expand_k", "exapnd_v": "expand_v"}
    expand_k: int | float = 1.0
    expand_v: int | float = 1.0
    num_heads: int = 4
    num_kv_heads: int | None = None
    num_slots: int | None = 64
    gate_logit_normalizer: int = 8
    clamp_min: int | float | None = None
    clamp_max: int | float | None = None
    use_short_conv: bool = False
    conv_size: int = 4
    feature_map: str | None = "swish"
    use_output_gate: bool = False
    use_norm: bool = True

    only: ClassVar[dict[str, Any]] = {**FLAConfig.only, "clamp_min": None, "clamp_max": None}


class GSAModel(FLAModel):
    """Blocks of gated slot attention."""

    config: GSAConfig
    mixer_class = GatedSlotAttention
    mixer_values: ClassVar[dict[str, Any]] = {"norm_eps": 1e-5}


class GSAForCausalLM(FLAForCausalLM):
    """The language model of gated slot attention (arXiv 2409.07146)."""

    config: GSAConfig
    model_class = GSAModel


register(GSAConfig, GSAModel, GSAForCausalLM)
