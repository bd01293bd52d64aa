"""Linear attention with one forget gate per head (arXiv 2405.11582, 2405.21060) as a language model."""

from typing import ClassVar

from huggingface_hub.dataclasses import strict

from fla.layers import SimpleGatedLinearAttention
from fla.models.base.configuration import FLAConfig
from fla.models.base.modeling import FLAForCausalLM, FLAModel
from fla.models.base.registration import register


@strict
class SimpleGLAConfig(FLAConfig):
    """The config of :class:`SimpleGLAForCausalLM`.

    Keys that :class:`FLAConfig` does not have are arguments of :class:`fla.layers.SimpleGatedLinearAttention`;
    ``attn_mode`` is its ``mode``. Tensor parallelism splits the MLPs only: a plan has no way to split a convolution.
    """

    model_type = "simple_gla"
    expand_k: int | float = 1.0
    expand_v: int | float = 1.0
    num_heads: int = 4
    num_kv_heads: int | None = None
    feature_map: str | None = None
    attn_mode: str = "chunk"
    use_short_conv: bool = True
    conv_size: int = 4
    gate_logit_normalizer: int = 16


class SimpleGLAModel(FLAModel):
    """Blocks of linear attention with one forget gate per head."""

    config: SimpleGLAConfig
    mixer_class = SimpleGatedLinearAttention
    mixer_keys: ClassVar[dict[str, str]] = {"mode": "attn_mode"}


class SimpleGLAForCausalLM(FLAForCausalLM):
    """The language model of linear attention with one forget gate per head (arXiv 2405.11582, 2405.21060)."""

    config: SimpleGLAConfig
    model_class = SimpleGLAModel


register(SimpleGLAConfig, SimpleGLAModel, SimpleGLAForCausalLM)
