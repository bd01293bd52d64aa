"""Parts shared by the RWKV models: their block, and the keys of their configs that say how it is made."""

from typing import Any, ClassVar

import torch
from huggingface_hub.dataclasses import strict
from torch import nn

from fla.layers import Mixer, RWKV6FeedForward, RWKV7FeedForward
from fla.models.base.configuration import FLAConfig
from fla.models.base.modeling import Block
from fla.modules import LayerNorm


@strict
class RWKVConfig(FLAConfig):
    """``norm_first`` normalises the embeddings, and ``norm_bias`` gives the norms of the hidden states a bias."""

    attn_mode: str = "chunk"
    hidden_act: str = "sqrelu"
    norm_first: bool = True
    norm_bias: bool = True
    norm_eps: int | float = 1e-5


class RWKVBlock(Block):
    """``x + mixer(norm(x))``, then ``x + channel_mixing(norm(x))``; the first block normalises its input."""

    channel_mixing: ClassVar[type[RWKV6FeedForward] | type[RWKV7FeedForward]]

    def __init__(self, config: RWKVConfig, mixer: Mixer) -> None:
        super(Block, self).__init__()
        if config.norm_first and mixer.layer_idx == 0:
            self.pre_norm = self.make_norm(config)
        self.attn_norm = self.make_norm(config)
        self.attn = mixer
        self.ffn_norm = self.make_norm(config)
        self.ffn = self.channel_mixing(
            config.hidden_size, config.hidden_ratio, config.intermediate_size, config.hidden_act, mixer.layer_idx
        )

    @staticmethod
    def make_norm(config: FLAConfig) -> nn.Module:
        """Layer norm."""
        assert isinstance(config, RWKVConfig)
        norm = LayerNorm if config.fuse_norm else nn.LayerNorm
        return norm(config.hidden_size, bias=config.norm_bias, eps=config.norm_eps)

    def forward(
        self, hidden_states: torch.Tensor, *shared: torch.Tensor | None, **call: Any
    ) -> tuple[torch.Tensor, ...]:
        """Run the block; see :meth:`Block.forward`."""
        if hasattr(self, "pre_norm"):
            hidden_states = self.pre_norm(hidden_states)
        taken = dict(zip(self.attn.takes, shared))
        mixed, _, _, *handed_on = self.attn(self.attn_norm(hidden_states), **call, **taken)
        hidden_states = hidden_states + mixed
        mixed, *_ = self.ffn(self.ffn_norm(hidden_states), **call)
        return (hidden_states + mixed, *handed_on)
