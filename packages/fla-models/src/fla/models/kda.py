"""Kimi delta attention (arXiv 2510.26692) as a language model."""

from typing import ClassVar

from huggingface_hub.dataclasses import strict

from fla.layers import KimiDeltaAttention
from fla.models.base.configuration import FLAConfig
from fla.models.base.modeling import FLAForCausalLM, FLAModel
from fla.models.base.registration import register


@strict
class KDAConfig(FLAConfig):
    """The config of :class:`KDAForCausalLM`.

    Keys that :class:`FLAConfig` does not have are arguments of :class:`fla.layers.KimiDeltaAttention`; ``attn_mode`` is
    its ``mode``.
    """

    model_type = "kda"
    attn_mode: str = "chunk"
    expand_v: int | float = 1.0
    use_short_conv: bool = True
    allow_neg_eigval: bool = False
    safe_gate: bool = False
    lower_bound: int | float | None = None
    conv_size: int = 4
    head_dim: int = 128
    num_heads: int = 16
    num_v_heads: int | None = None


class KDAModel(FLAModel):
    """Blocks of Kimi delta attention."""

    config: KDAConfig
    mixer_class = KimiDeltaAttention
    mixer_keys: ClassVar[dict[str, str]] = {"mode": "attn_mode"}


class KDAForCausalLM(FLAForCausalLM):
    """The language model of Kimi delta attention (arXiv 2510.26692)."""

    config: KDAConfig
    model_class = KDAModel


register(KDAConfig, KDAModel, KDAForCausalLM)
