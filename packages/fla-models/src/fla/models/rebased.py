"""ReBased (arXiv 2402.10644) as a language model."""

from typing import ClassVar

from huggingface_hub.dataclasses import strict

from fla.layers import ReBasedLinearAttention
from fla.models.base.configuration import FLAConfig
from fla.models.base.modeling import FLAForCausalLM, FLAModel
from fla.models.base.registration import register


@strict
class ReBasedConfig(FLAConfig):
    """The config of :class:`ReBasedForCausalLM`.

    Keys that :class:`FLAConfig` does not have are arguments of :class:`fla.layers.ReBasedLinearAttention`;
    ``attn_mode`` is its ``mode``, and ``num_kv_heads`` its ``num_key_value_heads``.
    """

    model_type = "rebased"
    attn_mode: str = "parallel"
    feature_dim: int = 16
    num_heads: int = 16
    num_kv_heads: int | None = None
    use_gamma: bool = True
    use_beta: bool = True
    normalize: bool = True
    eps: int | float = 1e-5


class ReBasedModel(FLAModel):
    """Blocks of ReBased's linear attention."""

    config: ReBasedConfig
    mixer_class = ReBasedLinearAttention
    mixer_keys: ClassVar[dict[str, str]] = {"mode": "attn_mode", "num_key_value_heads": "num_kv_heads"}


class ReBasedForCausalLM(FLAForCausalLM):
    """The language model ReBased (arXiv 2402.10644)."""

    config: ReBasedConfig
    model_class = ReBasedModel


register(ReBasedConfig, ReBasedModel, ReBasedForCausalLM)
