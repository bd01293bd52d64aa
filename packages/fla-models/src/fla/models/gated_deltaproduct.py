"""Gated DeltaProduct (arXiv 2502.10297) as a language model."""

from typing import ClassVar

from huggingface_hub.dataclasses import strict

from fla.layers import GatedDeltaProduct
from fla.models.base.configuration import FLAConfig
from fla.models.base.modeling import FLAForCausalLM, FLAModel
from fla.models.base.registration import register


@strict
class GatedDeltaProductConfig(FLAConfig):
    """The config of :class:`GatedDeltaProductForCausalLM`.

    Keys that :class:`FLAConfig` does not have are arguments of :class:`fla.layers.GatedDeltaProduct`; ``attn_mode`` is
    its ``mode``. Unlike the layer's, the defaults are one step a token, no decay and no negative eigenvalues.
    """

    model_type = "gated_deltaproduct"
    attn_mode: str = "chunk"
    conv_size: int = 4
    head_dim: int = 256
    num_heads: int = 6
    expand_v: int | float = 2.0
    use_output_gate: bool = True
    use_short_conv: bool = True
    num_hidden_layers: int = 21
    use_forget_gate: bool = False
    allow_neg_eigval: bool = False
    num_householder: int = 1


class GatedDeltaProductModel(FLAModel):
    """Blocks of the gated delta product."""

    config: GatedDeltaProductConfig
    mixer_class = GatedDeltaProduct
    mixer_keys: ClassVar[dict[str, str]] = {"mode": "attn_mode"}


class GatedDeltaProductForCausalLM(FLAForCausalLM):
    """The language model of Gated DeltaProduct (arXiv 2502.10297)."""

    config: GatedDeltaProductConfig
    model_class = GatedDeltaProductModel


register(GatedDeltaProductConfig, GatedDeltaProductModel, GatedDeltaProductForCausalLM)
