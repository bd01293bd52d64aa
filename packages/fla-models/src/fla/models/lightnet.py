"""LightNet (arXiv 2405.21022) as a language model."""

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict

from fla.layers import LightNetAttention
from fla.models.base.configuration import FLAConfig
from fla.models.base.modeling import FLAForCausalLM, FLAModel
from fla.models.base.registration import register


@strict
class LightNetConfig(FLAConfig):
    """The config of :class:`LightNetForCausalLM`.

    Keys that :class:`FLAConfig` does not have are arguments of :class:`fla.layers.LightNetAttention`; ``attn_mode``
    is its ``mode``.
    """

    model_type = "lightnet"
    attn_mode: str = "chunk"
    num_heads: int | None = None
    expand_ratio: int | None = 128
    use_short_conv: bool = False
    conv_size: int = 4
    gate_low_rank_dim: int = 128


class LightNetModel(FLAModel):
    """Blocks of LightNet attention."""

    config: LightNetConfig
    mixer_class = LightNetAttention
    mixer_keys: ClassVar[dict[str, str]] = {"mode": "attn_mode"}
    mixer_values: ClassVar[dict[str, Any]] = {"norm_eps": 1e-6}


class LightNetForCausalLM(FLAForCausalLM):
    """The language model of LightNet (arXiv 2405.21022)."""

    config: LightNetConfig
    model_class = LightNetModel


register(LightNetConfig, LightNetModel, LightNetForCausalLM)
