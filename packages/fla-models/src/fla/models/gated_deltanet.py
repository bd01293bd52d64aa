"""Gated DeltaNet (arXiv 2412.06464) as a language model."""

from typing import ClassVar

from huggingface_hub.dataclasses import strict

from fla.layers import GatedDeltaNet
from fla.models.base.configuration import FLAConfig
from fla.models.base.modeling import FLAForCausalLM, FLAModel
from fla.models.base.registration import register


@strict
class GatedDeltaNetConfig(FLAConfig):
    """The config of :class:`GatedDeltaNetForCausalLM`.

    Keys that :class:`FLAConfig` does not have are arguments of :class:`fla.layers.GatedDeltaNet`; ``attn_mode`` is its
    ``mode``.
    """

    model_type = "gated_deltanet"
    attn_mode: str = "chunk"
    expand_v: int | float = 2.0
    use_gate: bool = True
    use_short_conv: bool = True
    allow_neg_eigval: bool = False
    conv_size: int = 4
    head_dim: int = 256
    num_heads: int = 6
    num_v_heads: int | None = None
    num_hidden_layers: int = 21
    output_gate_activation: str = "swish"


class GatedDeltaNetModel(FLAModel):
    """Blocks of the gated delta rule."""

    config: GatedDeltaNetConfig
    mixer_class = GatedDeltaNet
    mixer_keys: ClassVar[dict[str, str]] = {"mode": "attn_mode"}


class GatedDeltaNetForCausalLM(FLAForCausalLM):
    """The language model of Gated DeltaNet (arXiv 2412.06464)."""

    config: GatedDeltaNetConfig
    model_class = GatedDeltaNetModel


register(GatedDeltaNetConfig, GatedDeltaNetModel, GatedDeltaNetForCausalLM)
