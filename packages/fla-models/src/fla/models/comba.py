"""Comba (arXiv 2506.02475) as a language model."""

from typing import ClassVar

from huggingface_hub.dataclasses import strict

from fla.layers import Comba
from fla.models.base.configuration import FLAConfig
from fla.models.base.modeling import FLAForCausalLM, FLAModel
from fla.models.base.registration import register


@strict
class CombaConfig(FLAConfig):
    """The config of :class:`CombaForCausalLM`.

    Keys that :class:`FLAConfig` does not have are arguments of :class:`fla.layers.Comba`; ``attn_mode`` is its
    ``mode``.
    """

    model_type = "comba"
    attn_mode: str = "chunk"
    conv_size: int = 4
    head_dim: int = 256
    num_heads: int = 6
    num_v_heads: int | None = None
    expand_v: int | float = 2.0
    use_output_gate: bool = True
    use_short_conv: bool = True
    use_output_correction: bool = True
    use_inner_decay: bool = True
    correction_factor: int | float = 1.0
    num_hidden_layers: int = 21


class CombaModel(FLAModel):
    """Blocks of Comba."""

    config: CombaConfig
    mixer_class = Comba
    mixer_keys: ClassVar[dict[str, str]] = {"mode": "attn_mode"}


class CombaForCausalLM(FLAForCausalLM):
    """The language model of Comba (arXiv 2506.02475)."""

    config: CombaConfig
    model_class = CombaModel


register(CombaConfig, CombaModel, CombaForCausalLM)
