"""Samba (arXiv 2406.07522) as a language model: Mamba and attention windows in turn."""

from typing import Any, ClassVar

import torch
from huggingface_hub.dataclasses import strict

from fla.layers import Mamba, Mixer
from fla.models.base.backbone import BackboneBlock, BackboneConfig, BackboneForCausalLM, BackboneModel
from fla.models.base.configuration import FLAConfig
from fla.models.base.registration import register
from fla.modules import GatedMLP

HEAD_DIM = 128
WINDOW = 2048
PAPER = "paper"


@strict
class SambaConfig(BackboneConfig):
    """The config of :class:`SambaForCausalLM`.

    Keys that :class:`BackboneConfig` does not have are arguments of :class:`fla.layers.Mamba`: ``time_step_rank`` and
    so on are its ``dt_rank`` and so on, and ``intermediate_size`` is ``expand * hidden_size`` unless given. The MLPs
    have the size that follows from ``hidden_ratio``.

    Where ``attn`` is not given, or is ``"paper"``, every second layer is attention with a window of 2048 and heads of
    128, as in the paper. None is for no attention, as in flash-linear-attention.
    """

    model_type = "samba"
    base_model_tp_plan: ClassVar[dict[str, Any] | None] = FLAConfig.base_model_tp_plan
    hidden_size: int = 2304
    num_hidden_layers: int = 18
    attn: dict | list | str | None = PAPER  # type: ignore[type-arg, assignment]  # one value more than the base
    hidden_act: str = "swish"
    state_size: int = 16
    time_step_rank: int | str = "auto"
    time_step_scale: int | float = 1.0
    time_step_min: int | float = 0.001
    time_step_max: int | float = 0.1
    time_step_init_scheme: str = "random"
    time_step_floor: int | float = 1e-4

    def __post_init__(self, **kwargs: Any) -> None:
        if self.intermediate_size is None:
            self.intermediate_size = int(self.expand * self.hidden_size)
        super().__post_init__(**kwargs)

    def __setattr__(self, key: str, value: Any) -> None:
        if key == "attn" and value == PAPER:
            # Sizes are known by now: fields are set in the order in which they stand.
            heads, windows = max(1, self.hidden_size // HEAD_DIM), list(range(1, self.num_hidden_layers, 2))
            value = {"layers": windows, "num_heads": heads, "window_size": WINDOW} if windows else None
        super().__setattr__(key, value)


class SambaBlock(BackboneBlock):
    """``x + mixer(norm(x))``, then ``x + mlp(norm(x))``."""

    norm_name: ClassVar[str] = "mixer_norm"

    def __init__(self, config: SambaConfig, mixer: Mixer) -> None:
        super().__init__(config, mixer)
        self.mlp_norm = self.make_norm(config)
        self.mlp = GatedMLP(
            config.hidden_size, config.hidden_ratio, hidden_act=config.hidden_act, fuse_swiglu=config.fuse_swiglu
        )

    def forward(
        self, hidden_states: torch.Tensor, *shared: torch.Tensor | None, **call: Any
    ) -> tuple[torch.Tensor, ...]:
        """Run the block; see :meth:`Block.forward`."""
        hidden_states, *handed_on = super().forward(hidden_states, *shared, **call)
        return (hidden_states + self.mlp(self.mlp_norm(hidden_states)), *handed_on)


class SambaModel(BackboneModel):
    """Blocks of Mamba's selective state space and of attention windows."""

    config: SambaConfig
    mixer_class = Mamba
    mixer_keys: ClassVar[dict[str, str]] = {
        "dt_rank": "time_step_rank",
        "dt_scale": "time_step_scale",
        "dt_min": "time_step_min",
        "dt_max": "time_step_max",
        "dt_init": "time_step_init_scheme",
        "dt_init_floor": "time_step_floor",
    }
    block_class: ClassVar[type[BackboneBlock]] = SambaBlock


class SambaForCausalLM(BackboneForCausalLM):
    """The language model of Samba (arXiv 2406.07522)."""

    config: SambaConfig
    model_class = SambaModel


register(SambaConfig, SambaModel, SambaForCausalLM)
