"""Gated linear attention (arXiv 2312.06635) as a language model."""

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict

from fla.layers import GatedLinearAttention
from fla.models.base.configuration import FLAConfig
from fla.models.base.modeling import FLAForCausalLM, FLAModel
from fla.models.base.registration import register


@strict
class GLAConfig(FLAConfig):
    """The config of :class:`GLAForCausalLM`.

    Keys that :class:`FLAConfig` does not have are arguments of :class:`fla.layers.GatedLinearAttention`;
    ``attn_mode`` is its ``mode``. ``use_gk`` and ``use_gv`` must keep their defaults. Tensor parallelism splits the
    MLPs only: a plan reads every number in a name as a layer's, so the two matrices of the gate are one to it.
    """

    model_type = "gla"
    expand_k: int | float = 0.5
    expand_v: int | float = 1.0
    num_heads: int = 4
    num_kv_heads: int | None = None
    feature_map: str | None = None
    attn_mode: str = "chunk"
    use_short_conv: bool = False
    conv_size: int = 4
    use_output_gate: bool = True
    clamp_min: int | float | None = None
    use_gk: bool = True
    use_gv: bool = False

    only: ClassVar[dict[str, Any]] = {**FLAConfig.only, "use_gk": True, "use_gv": False}


class GLAModel(FLAModel):
    """Blocks of gated linear attention."""

    config: GLAConfig
    mixer_class = GatedLinearAttention
    mixer_keys: ClassVar[dict[str, str]] = {"mode": "attn_mode"}


class GLAForCausalLM(FLAForCausalLM):
    """The language model of gated linear attention (arXiv 2312.06635)."""

    config: GLAConfig
    model_class = GLAModel


register(GLAConfig, GLAModel, GLAForCausalLM)
