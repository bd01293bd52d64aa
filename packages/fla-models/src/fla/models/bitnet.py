"""BitNet b1.58 (arXiv 2402.17764) as a language model: ternary weights, 8-bit activations."""

from functools import partial
from typing import Any, ClassVar

import torch
from huggingface_hub.dataclasses import strict
from torch import nn

from fla.layers import BitAttention
from fla.models.base.configuration import FLAConfig
from fla.models.base.modeling import Block, FLAForCausalLM, FLAModel, FLAPreTrainedModel
from fla.models.base.registration import register
from fla.models.base.rope import RopeConfig
from fla.modules import FusedBitLinear, GatedMLP
from fla.modules.fused_bitlinear import PackedBitLinear, pack_bitlinear, pack_ternary
from fla.modules.fused_bitlinear.api import to_ternary


@strict
class BitNetConfig(RopeConfig):
    """The config of :class:`BitNetForCausalLM`.

    Keys that :class:`RopeConfig` does not have are arguments of :class:`fla.layers.BitAttention`, and in addition:

    Args:
        use_bitlinear_mlp: ternary weights in the MLPs too, as in the paper; existing checkpoints have plain ones.
        bitlinear_norm_eps: added to the mean square in the norms of the ternary layers.
        packed_weights: ternary weights of 2 bits, for inference only; see :meth:`BitNetForCausalLM.pack_weights`.
    """

    model_type = "bitnet"
    num_heads: int = 32
    num_kv_heads: int | None = None
    window_size: int | None = None
    use_bitlinear_mlp: bool = False
    bitlinear_norm_eps: int | float = 1e-8
    packed_weights: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.use_bitlinear_mlp:
            # The norm before a ternary layer, and the mean of its weights, take in the whole matrix.
            plan = self.base_model_tp_plan or {}
            self.base_model_tp_plan = {  # type: ignore[misc]
                name: style for name, style in plan.items() if ".mlp." not in name
            }


class BitNetBlock(Block):
    """A block whose MLP may be ternary."""

    @staticmethod
    def make_mlp(config: FLAConfig) -> nn.Module:
        """The gated MLP; see ``use_bitlinear_mlp``."""
        assert isinstance(config, BitNetConfig)
        if not config.use_bitlinear_mlp:
            return Block.make_mlp(config)
        return GatedMLP(
            config.hidden_size,
            config.hidden_ratio,
            config.intermediate_size,
            config.hidden_act,
            linear=partial(FusedBitLinear, norm_eps=config.bitlinear_norm_eps),
        )


class BitNetPreTrainedModel(FLAPreTrainedModel):
    """The base of both models of BitNet."""

    config: BitNetConfig
    _is_stateful = False

    def pack_weights(self) -> None:
        """Pack the ternary weights of a trained model into 2 bits each, in place, and set it to evaluation mode.

        Results stay as they are; saved and loaded it stays packed. The weights are unpacked layer by layer whenever
        they are used: it is memory that is saved, not time. A packed model cannot be trained, nor unpacked.
        """
        pack_bitlinear(self)
        self.config.packed_weights = True
        self.eval()  # type: ignore[no-untyped-call]


class BitNetModel(BitNetPreTrainedModel, FLAModel):
    """Blocks of softmax attention with ternary weights."""

    config: BitNetConfig
    mixer_class = BitAttention
    mixer_keys: ClassVar[dict[str, str]] = {"norm_eps": "bitlinear_norm_eps"}
    block_class = BitNetBlock

    def __init__(self, config: BitNetConfig) -> None:
        super().__init__(config)
        if config.packed_weights:
            pack_bitlinear(self)

    def initial_values(self, num_hidden_layers: int) -> dict[str, torch.Tensor]:
        """Initial values of packed weights: new weights, packed."""
        values: dict[str, torch.Tensor] = {}
        for name, layer in self.named_modules():
            if isinstance(layer, PackedBitLinear):
                fresh = torch.empty(layer.out_features, layer.in_features).normal_(std=self.config.initializer_range)
                signs, scale = to_ternary(fresh)
                values |= {f"{name}.weight": pack_ternary(signs), f"{name}.scale": scale}
                if layer.bias is not None:
                    values[f"{name}.bias"] = torch.zeros_like(layer.bias)
        return values


class BitNetForCausalLM(BitNetPreTrainedModel, FLAForCausalLM):
    """The language model of BitNet b1.58 (arXiv 2402.17764).

    Its files say ``fla_bitnet``, which ``AutoModelForCausalLM`` loads as this class; those that say ``bitnet`` it loads
    as transformers has BitNet.
    """

    config: BitNetConfig
    model_class = BitNetModel


register(BitNetConfig, BitNetModel, BitNetForCausalLM)
