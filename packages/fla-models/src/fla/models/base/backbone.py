"""Parts shared by the state-space models: a block without an MLP, and the names that their checkpoints have."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from huggingface_hub.dataclasses import strict
from torch import nn

from fla.layers import Mixer
from fla.models.base.configuration import FLAConfig
from fla.models.base.modeling import Block, FLAForCausalLM, FLAModel


@strict
class BackboneConfig(FLAConfig):
    """The base of the configs of state-space models.

    Args:
        expand: channels of the mixer over ``hidden_size``.
        conv_kernel: width of the mixer's short convolution.
        use_conv_bias: whether it has a bias.
        use_bias: whether the mixer's projections have one.
        residual_in_fp32: add up the residual stream in float32, whatever the dtype of the weights.
        rescale_prenorm_residual: divide initial output projections by the root of the number of layers.
    """

    base_model_tp_plan: ClassVar[dict[str, Any] | None] = {}
    base_model_fsdp_plan: ClassVar[dict[Any, str]] = {
        "embeddings": "free_full_weight",
        "layers.*": "free_full_weight",
        "norm_f": "keep_full_weight",
    }

    hidden_act: str = "silu"
    norm_eps: int | float = 1e-5
    pad_token_id: int | None = 0
    expand: int | float = 2
    conv_kernel: int = 4
    use_conv_bias: bool = True
    use_bias: bool = False
    residual_in_fp32: bool = False
    rescale_prenorm_residual: bool = False


def _in_weight_dtype(norm: nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Arguments of a norm in the dtype of its weight, where the residual stream is in a wider one."""
    weight = norm.weight
    assert isinstance(weight, torch.Tensor)
    return tuple(x.to(weight.dtype) for x in arguments)


class BackboneBlock(Block):
    """``x + mixer(norm(x))``."""

    mixer_name: ClassVar[str] = "mixer"
    norm_name: ClassVar[str] = "norm"
    """Name of the norm before the mixer, as in checkpoints."""

    def __init__(self, config: BackboneConfig, mixer: Mixer) -> None:
        super(Block, self).__init__()
        self.add_module(self.norm_name, self.make_norm(config))
        self.mixer = mixer
        self.residual_in_fp32 = config.residual_in_fp32
        self.rescale_prenorm_residual = config.rescale_prenorm_residual

    @staticmethod
    def make_norm(config: FLAConfig) -> nn.Module:
        """RMS norm of the residual stream, whatever its dtype."""
        norm = Block.make_norm(config)
        norm.register_forward_pre_hook(_in_weight_dtype)
        return norm

    def forward(
        self, hidden_states: torch.Tensor, *shared: torch.Tensor | None, **call: Any
    ) -> tuple[torch.Tensor, ...]:
        """Run the block; see :meth:`Block.forward`."""
        taken = dict(zip(self.mixer.takes, shared))
        normed = getattr(self, self.norm_name)(hidden_states)
        mixed, _, _, *handed_on = self.mixer(normed, **call, **taken)
        if self.residual_in_fp32:
            hidden_states = hidden_states.to(torch.promote_types(hidden_states.dtype, torch.float32))
        return (hidden_states + mixed, *handed_on)

    def initial_values(self, num_hidden_layers: int) -> dict[str, torch.Tensor]:
        """Initial output projection, divided by the root of the number of layers, where asked for."""
        projection = getattr(self.mixer, "out_proj", None)
        if projection is None or not self.rescale_prenorm_residual:
            return {}
        fresh = torch.empty(projection.out_features, projection.in_features, dtype=torch.float32)
        return {"mixer.out_proj.weight": nn.init.kaiming_uniform_(fresh, math.sqrt(5)) / math.sqrt(num_hidden_layers)}


class BackboneModel(FLAModel):
    """Blocks of a state-space mixer."""

    config: BackboneConfig
    base_model_prefix = "backbone"
    block_class: ClassVar[type[BackboneBlock]] = BackboneBlock
    norm_name: ClassVar[str] = "norm_f"


class BackboneForCausalLM(FLAForCausalLM):
    """A state-space model with a language-modelling head."""

    config: BackboneConfig
    base_model_prefix = "backbone"
    _tied_weights_keys = {"lm_head.weight": "backbone.embeddings.weight"}
