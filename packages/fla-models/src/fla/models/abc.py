"""Attention with bounded memory control (arXiv 2110.02488) as a language model."""

from typing import ClassVar

from huggingface_hub.dataclasses import strict

from fla.layers import ABCAttention
from fla.models.base.configuration import FLAConfig
from fla.models.base.modeling import FLAForCausalLM, FLAModel
from fla.models.base.registration import register


@strict
class ABCConfig(FLAConfig):
    """The config of :class:`ABCForCausalLM`.

    Keys that :class:`FLAConfig` does not have are arguments of :class:`fla.layers.ABCAttention`.
    """

    model_type = "abc"
    attribute_map: ClassVar[dict[str, str]] = {"exapnd_k": "expand_k", "exapnd_v": "expand_v"}
    expand_k: int | float = 0.5
    expand_v: int | float = 1.0
    num_heads: int = 4
    num_slots: int | None = 64
    gate_low_rank_dim: int = 16
    clamp_min: int | float | None = -32
    clamp_max: int | float | None = 32
    use_short_conv: bool = False
    conv_size: int = 4
    use_rope: bool = True


class ABCModel(FLAModel):
    """Blocks of attention with bounded memory control."""

    config: ABCConfig
    mixer_class = ABCAttention


class ABCForCausalLM(FLAForCausalLM):
    """The language model of attention with bounded memory control (arXiv 2110.02488)."""

    config: ABCConfig
    model_class = ABCModel


register(ABCConfig, ABCModel, ABCForCausalLM)
