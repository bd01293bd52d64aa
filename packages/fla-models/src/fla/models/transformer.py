"""The transformer with rotary positions and gated MLPs: the baseline."""

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict

from fla.layers import Attention
from fla.models.base.configuration import FLAConfig
from fla.models.base.modeling import FLAForCausalLM, FLAModel
from fla.models.base.registration import register
from fla.models.base.rope import RopeConfig


@strict
class TransformerConfig(RopeConfig):
    """The config of :class:`TransformerForCausalLM`.

    Keys that :class:`RopeConfig` does not have are arguments of :class:`fla.layers.Attention`; ``qk_norm_eps`` is its
    ``norm_eps``.
    """

    model_type = "transformer"
    base_model_tp_plan: ClassVar[dict[str, Any] | None] = {
        **(FLAConfig.base_model_tp_plan or {}),
        "layers.*.attn.q_proj": "colwise",
        "layers.*.attn.k_proj": "colwise",
        "layers.*.attn.v_proj": "colwise",
        "layers.*.attn.q_norm": "replicated_with_grad_allreduce",
        "layers.*.attn.k_norm": "replicated_with_grad_allreduce",
        "layers.*.attn.o_proj": "rowwise",
    }

    num_heads: int = 32
    num_kv_heads: int | None = None
    qkv_bias: bool = False
    qk_norm: bool = False
    window_size: int | None = None
    head_dim: int | None = None
    o_bias: bool = False
    qk_norm_eps: int | float = 1e-5


class TransformerModel(FLAModel):
    """Blocks of softmax attention."""

    config: TransformerConfig
    mixer_class = Attention
    mixer_keys: ClassVar[dict[str, str]] = {"norm_eps": "qk_norm_eps"}
    _is_stateful = False


class TransformerForCausalLM(FLAForCausalLM):
    """The language model with softmax attention (arXiv 1706.03762)."""

    config: TransformerConfig
    model_class = TransformerModel
    _is_stateful = False


register(TransformerConfig, TransformerModel, TransformerForCausalLM)
