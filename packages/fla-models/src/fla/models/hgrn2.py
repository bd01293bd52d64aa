"""HGRN2 (arXiv 2404.07904) as a language model."""

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict

from fla.layers import HGRN2Attention
from fla.layers.base import expanded_heads
from fla.models.base.configuration import FLAConfig
from fla.models.base.lower_bounds import LowerBoundedModel
from fla.models.base.modeling import FLAForCausalLM
from fla.models.base.registration import register


@strict
class HGRN2Config(FLAConfig):
    """The config of :class:`HGRN2ForCausalLM`.

    Keys that :class:`FLAConfig` does not have are arguments of :class:`fla.layers.HGRN2Attention`; ``attn_mode`` is
    its ``mode``. With ``use_lower_bound`` the forget gates of each layer stay above learned bounds.
    """

    model_type = "hgrn2"
    attn_mode: str = "chunk"
    num_heads: int | None = None
    expand_ratio: int | None = 128
    use_short_conv: bool = False
    conv_size: int = 4
    use_lower_bound: bool = True


class HGRN2Model(LowerBoundedModel):
    """Blocks of HGRN2 attention."""

    config: HGRN2Config
    mixer_class = HGRN2Attention
    mixer_keys: ClassVar[dict[str, str]] = {"mode": "attn_mode"}
    mixer_values: ClassVar[dict[str, Any]] = {"norm_eps": 1e-5}

    def forget_dim(self) -> int:
        """Key channels of all heads."""
        config = self.config
        heads, channels = expanded_heads(config.hidden_size, config.num_heads, config.expand_ratio)
        return heads * channels


class HGRN2ForCausalLM(FLAForCausalLM):
    """The language model of HGRN2 (arXiv 2404.07904)."""

    config: HGRN2Config
    model_class = HGRN2Model


register(HGRN2Config, HGRN2Model, HGRN2ForCausalLM)
