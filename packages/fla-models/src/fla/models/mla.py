"""Multi-head latent attention (arXiv 2405.04434) as a language model."""

from huggingface_hub.dataclasses import strict

from fla.layers import MultiheadLatentAttention
from fla.models.base.modeling import FLAForCausalLM, FLAModel
from fla.models.base.registration import register
from fla.models.base.rope import RopeConfig


@strict
class MLAConfig(RopeConfig):
    """The config of :class:`MLAForCausalLM`.

    Keys that :class:`RopeConfig` does not have are arguments of :class:`fla.layers.MultiheadLatentAttention`.
    """

    model_type = "mla"
    num_heads: int = 16
    q_lora_rank: int | None = 64
    qk_rope_head_dim: int = 64
    kv_lora_rank: int = 512
    v_head_dim: int = 128
    qk_nope_head_dim: int = 128
    qk_head_dim: int | None = 192
    window_size: int | None = None
    rope_theta: int | float = 10000.0


class MLAModel(FLAModel):
    """Blocks of multi-head latent attention."""

    config: MLAConfig
    mixer_class = MultiheadLatentAttention
    _is_stateful = False


class MLAForCausalLM(FLAForCausalLM):
    """The language model with multi-head latent attention (arXiv 2405.04434)."""

    config: MLAConfig
    model_class = MLAModel
    _is_stateful = False


register(MLAConfig, MLAModel, MLAForCausalLM)
