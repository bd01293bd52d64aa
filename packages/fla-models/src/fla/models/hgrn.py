"""HGRN (arXiv 2311.04823) as a language model."""

from typing import ClassVar

from huggingface_hub.dataclasses import strict

from fla.layers import HGRNAttention
from fla.models.base.configuration import FLAConfig
from fla.models.base.lower_bounds import LowerBoundedModel
from fla.models.base.modeling import FLAForCausalLM
from fla.models.base.registration import register


@strict
class HGRNConfig(FLAConfig):
    """The config of :class:`HGRNForCausalLM`.

    Keys that :class:`FLAConfig` does not have are arguments of :class:`fla.layers.HGRNAttention`; ``attn_mode`` is
    its ``mode``. With ``use_lower_bound`` the forget gates of each layer stay above learned bounds.
    """

    model_type = "hgrn"
    attn_mode: str = "fused_recurrent"
    expand_ratio: int = 1
    use_short_conv: bool = False
    conv_size: int = 4
    use_lower_bound: bool = True


class HGRNModel(LowerBoundedModel):
    """Blocks of HGRN attention."""

    config: HGRNConfig
    mixer_class = HGRNAttention
    mixer_keys: ClassVar[dict[str, str]] = {"mode": "attn_mode"}

    def forget_dim(self) -> int:
        """Channels of the state."""
        return self.config.hidden_size * self.config.expand_ratio


class HGRNForCausalLM(FLAForCausalLM):
    """The language model of HGRN (arXiv 2311.04823)."""

    config: HGRNConfig
    model_class = HGRNModel


register(HGRNConfig, HGRNModel, HGRNForCausalLM)
