"""DeltaNet (arXiv 2406.06484) as a language model."""

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict

from fla.layers import DeltaNet
from fla.models.base.configuration import FLAConfig
from fla.models.base.modeling import FLAForCausalLM, FLAModel
from fla.models.base.registration import register


@strict
class DeltaNetConfig(FLAConfig):
    """The config of :class:`DeltaNetForCausalLM`.

    Keys that :class:`FLAConfig` does not have are arguments of :class:`fla.layers.DeltaNet`; ``attn_mode`` is its
    ``mode``. ``use_output_norm`` must keep its default.
    """

    model_type = "delta_net"
    attn_mode: str = "chunk"
    expand_k: int | float = 1.0
    expand_v: int | float = 1.0
    use_gate: bool = False
    use_short_conv: bool = True
    allow_neg_eigval: bool = False
    conv_size: int = 4
    use_beta: bool = True
    use_output_norm: bool = True
    num_heads: int = 16
    qk_norm: str = "l2"
    qk_activation: str = "silu"

    only: ClassVar[dict[str, Any]] = {**FLAConfig.only, "use_output_norm": True}


class DeltaNetModel(FLAModel):
    """Blocks of the delta rule."""

    config: DeltaNetConfig
    mixer_class = DeltaNet
    mixer_keys: ClassVar[dict[str, str]] = {"mode": "attn_mode"}


class DeltaNetForCausalLM(FLAForCausalLM):
    """The language model of DeltaNet (arXiv 2406.06484)."""

    config: DeltaNetConfig
    model_class = DeltaNetModel


register(DeltaNetConfig, DeltaNetModel, DeltaNetForCausalLM)
