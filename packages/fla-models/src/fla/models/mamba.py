"""Mamba (arXiv 2312.00752) as a language model."""

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict

from fla.layers import Mamba
from fla.models.base.backbone import BackboneConfig, BackboneForCausalLM, BackboneModel
from fla.models.base.registration import register


@strict
class MambaConfig(BackboneConfig):
    """The config of :class:`MambaForCausalLM`.

    Keys that :class:`BackboneConfig` does not have are arguments of :class:`fla.layers.Mamba`; ``dt_init_scheme`` is
    its ``dt_init``, and ``intermediate_size`` is ``expand * hidden_size`` unless given.
    """

    model_type = "mamba"
    num_hidden_layers: int = 48
    state_size: int = 16
    dt_rank: int | str = "auto"
    dt_scale: int | float = 1.0
    dt_min: int | float = 0.001
    dt_max: int | float = 0.1
    dt_init_scheme: str = "random"
    dt_init_floor: int | float = 1e-4

    def __post_init__(self, **kwargs: Any) -> None:
        if self.intermediate_size is None:
            self.intermediate_size = int(self.expand * self.hidden_size)
        super().__post_init__(**kwargs)


class MambaModel(BackboneModel):
    """Blocks of Mamba's selective state space."""

    config: MambaConfig
    mixer_class = Mamba
    mixer_keys: ClassVar[dict[str, str]] = {"dt_init": "dt_init_scheme"}


class MambaForCausalLM(BackboneForCausalLM):
    """The language model of Mamba (arXiv 2312.00752).

    Its files say ``fla_mamba``, which ``AutoModelForCausalLM`` loads as this class. Those that say ``mamba`` it loads
    as transformers' own; :func:`fla.models.convert.mamba_from_transformers` makes one of these ours.
    """

    config: MambaConfig
    model_class = MambaModel


register(MambaConfig, MambaModel, MambaForCausalLM)
