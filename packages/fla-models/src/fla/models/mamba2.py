"""Mamba-2 (arXiv 2405.21060) as a language model."""

from typing import Any

from huggingface_hub.dataclasses import strict

from fla.layers import Mamba2
from fla.models.base.backbone import BackboneConfig, BackboneForCausalLM, BackboneModel
from fla.models.base.registration import register


@strict
class Mamba2Config(BackboneConfig):
    """The config of :class:`Mamba2ForCausalLM`.

    Keys that :class:`BackboneConfig` does not have are arguments of :class:`fla.layers.Mamba2`.
    """

    model_type = "mamba2"
    num_hidden_layers: int = 48
    num_heads: int | None = None
    head_dim: int = 64
    state_size: int = 128
    n_groups: int = 1
    conv_init: int | float | None = None
    A_init_range: list | tuple = (1, 16)  # type: ignore[type-arg]  # strict checks what it can name
    D_has_hdim: bool = False
    rmsnorm: bool = True
    norm_before_gate: bool = False
    dt_min: int | float = 0.001
    dt_max: int | float = 0.1
    dt_init_floor: int | float = 1e-4
    dt_limit: list | tuple = (0.0, float("inf"))  # type: ignore[type-arg]
    chunk_size: int = 256
    residual_in_fp32: bool = True
    rescale_prenorm_residual: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        # Files give lists back.
        self.A_init_range, self.dt_limit = list(self.A_init_range), list(self.dt_limit)
        super().__post_init__(**kwargs)


class Mamba2Model(BackboneModel):
    """Blocks of Mamba-2's state-space duality."""

    config: Mamba2Config
    mixer_class = Mamba2


class Mamba2ForCausalLM(BackboneForCausalLM):
    """The language model of Mamba-2 (arXiv 2405.21060).

    Its files say ``fla_mamba2``, which ``AutoModelForCausalLM`` loads as this class. Those that say ``mamba2`` it loads
    as transformers' own; :func:`fla.models.convert.mamba2_from_transformers` makes one of these ours.
    """

    config: Mamba2Config
    model_class = Mamba2Model


register(Mamba2Config, Mamba2Model, Mamba2ForCausalLM)
