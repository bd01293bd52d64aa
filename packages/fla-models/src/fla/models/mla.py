"""Multi-head latent attention (arXiv 2405.04434) as a language model."""

from typing import Any

from huggingface_hub.dataclasses import strict

from fla.layers import MultiheadLatentAttention
from fla.models.configuration import FLAConfig
from fla.models.modeling import FLAForCausalLM, FLAModel
from fla.models.registration import register


@strict
class MLAConfig(FLAConfig):
    """The config of :class:`MLAForCausalLM`.

    Keys that :class:`FLAConfig` does not have are arguments of :class:`fla.layers.MultiheadLatentAttention`. The
    ``rope_parameters`` of checkpoints written by transformers 5 are understood as ``rope_theta`` and
    ``rope_scaling``.
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
    rope_scaling: dict | None = None  # type: ignore[type-arg]  # strict checks what it can name

    def __post_init__(self, **kwargs: Any) -> None:
        if parameters := dict(kwargs.pop("rope_parameters", None) or {}):
            self.rope_theta = parameters.pop("rope_theta", self.rope_theta)
            self.rope_scaling = parameters
        super().__post_init__(**kwargs)

    @classmethod
    def _unknown(cls, keys: Any) -> list[str]:
        return [key for key in super()._unknown(keys) if key != "rope_parameters"]


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
