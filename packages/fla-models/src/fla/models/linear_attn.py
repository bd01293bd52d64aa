"""Linear attention (arXiv 2006.16236) as a language model."""

from typing import ClassVar

from huggingface_hub.dataclasses import strict

from fla.layers import LinearAttention
from fla.models.base.configuration import FLAConfig
from fla.models.base.modeling import FLAForCausalLM, FLAModel
from fla.models.base.registration import register


@strict
class LinearAttentionConfig(FLAConfig):
    """The config of :class:`LinearAttentionForCausalLM`.

    Keys that :class:`FLAConfig` does not have are arguments of :class:`fla.layers.LinearAttention`; ``attn_mode`` is
    its ``mode``, and ``norm_feature_map`` its ``do_feature_map_norm``.
    """

    model_type = "linear_attn"
    attn_mode: str = "fused_chunk"  # a name of the chunk form, and the default that existing configs have
    expand_k: int | float = 1.0
    expand_v: int | float = 1.0
    num_heads: int = 4
    num_kv_heads: int | None = None
    feature_map: str = "elementwise_product"
    tie_feature_map_qk: bool = False
    norm_q: bool = False
    norm_k: bool = False
    norm_feature_map: bool = False


class LinearAttentionModel(FLAModel):
    """Blocks of linear attention."""

    config: LinearAttentionConfig
    mixer_class = LinearAttention
    mixer_keys: ClassVar[dict[str, str]] = {"mode": "attn_mode", "do_feature_map_norm": "norm_feature_map"}
    # One feature map for queries and keys may be stored under both names.
    _keys_to_ignore_on_load_unexpected = [r"\.feature_map_k\."]


class LinearAttentionForCausalLM(FLAForCausalLM):
    """The language model of linear attention (arXiv 2006.16236)."""

    config: LinearAttentionConfig
    model_class = LinearAttentionModel
    _keys_to_ignore_on_load_unexpected = LinearAttentionModel._keys_to_ignore_on_load_unexpected


register(LinearAttentionConfig, LinearAttentionModel, LinearAttentionForCausalLM)
