"""RetNet (arXiv 2307.08621) as a language model."""

from typing import ClassVar

from huggingface_hub.dataclasses import strict

from fla.layers import MultiScaleRetention
from fla.models.base.configuration import FLAConfig
from fla.models.base.modeling import FLAForCausalLM, FLAModel
from fla.models.base.registration import register


@strict
class RetNetConfig(FLAConfig):
    """The config of :class:`RetNetForCausalLM`.

    Keys that :class:`FLAConfig` does not have are arguments of :class:`fla.layers.MultiScaleRetention`;
    ``attn_mode`` is its ``mode``. Tensor parallelism splits the MLPs only: how fast a head forgets follows from its
    place among all heads, which a rank that holds a part of them does not know.
    """

    model_type = "retnet"
    hidden_ratio: int | float | None = 2
    expand_k: int | float = 1.0
    expand_v: int | float = 2.0
    num_heads: int = 8
    num_kv_heads: int | None = None
    feature_map: str | None = None
    attn_mode: str = "chunk"
    use_short_conv: bool = False
    conv_size: int = 4
    use_output_gate: bool = True


class RetNetModel(FLAModel):
    """Blocks of multi-scale retention."""

    config: RetNetConfig
    mixer_class = MultiScaleRetention
    mixer_keys: ClassVar[dict[str, str]] = {"mode": "attn_mode"}


class RetNetForCausalLM(FLAForCausalLM):
    """The language model of RetNet (arXiv 2307.08621)."""

    config: RetNetConfig
    model_class = RetNetModel


register(RetNetConfig, RetNetModel, RetNetForCausalLM)
