"""RWKV-6 (arXiv 2404.05892) as a language model."""

from typing import Any, ClassVar

import torch
from huggingface_hub.dataclasses import strict
from torch import nn

from fla.layers import Mixer, RWKV6Attention, RWKV6FeedForward
from fla.models.configuration import FLAConfig
from fla.models.modeling import Block, FLAForCausalLM, FLAModel
from fla.models.registration import register
from fla.modules import LayerNorm


@strict
class RWKV6Config(FLAConfig):
    """The config of :class:`RWKV6ForCausalLM`.

    Keys that :class:`FLAConfig` does not have are arguments of :class:`fla.layers.RWKV6Attention`; ``attn_mode`` is its
    ``mode``. ``norm_first`` normalises the embeddings, and ``norm_bias`` gives the norms of the hidden states a bias.
    """

    model_type = "rwkv6"
    attn_mode: str = "chunk"
    expand_k: int | float = 0.5
    expand_v: int | float = 1.0
    hidden_ratio: int | float | None = 3.5
    num_heads: int = 4
    proj_low_rank_dim: int = 32
    gate_low_rank_dim: int = 64
    hidden_act: str = "sqrelu"
    norm_first: bool = True
    norm_bias: bool = True
    norm_eps: int | float = 1e-5


class RWKV6Block(Block):
    """``x + mixer(norm(x))``, then ``x + channel_mixing(norm(x))``; the first block normalises its input."""

    def __init__(self, config: RWKV6Config, mixer: Mixer) -> None:
        super(Block, self).__init__()
        if config.norm_first and mixer.layer_idx == 0:
            self.pre_norm = self.make_norm(config)
        self.attn_norm = self.make_norm(config)
        self.attn = mixer
        self.ffn_norm = self.make_norm(config)
        self.ffn = RWKV6FeedForward(
            config.hidden_size, config.hidden_ratio, config.intermediate_size, config.hidden_act, mixer.layer_idx
        )

    @staticmethod
    def make_norm(config: FLAConfig) -> nn.Module:
        """Layer norm."""
        assert isinstance(config, RWKV6Config)
        norm = LayerNorm if config.fuse_norm else nn.LayerNorm
        return norm(config.hidden_size, bias=config.norm_bias, eps=config.norm_eps)

    def forward(
        self, hidden_states: torch.Tensor, *shared: torch.Tensor | None, **call: Any
    ) -> tuple[torch.Tensor, ...]:
        """One block; see :meth:`Block.forward`."""
        if hasattr(self, "pre_norm"):
            hidden_states = self.pre_norm(hidden_states)
        mixed, *_ = self.attn(self.attn_norm(hidden_states), **call)
        hidden_states = hidden_states + mixed
        mixed, *_ = self.ffn(self.ffn_norm(hidden_states), **call)
        return (hidden_states + mixed,)


class RWKV6Model(FLAModel):
    """Blocks of RWKV-6's time mixing and channel mixing."""

    config: RWKV6Config
    mixer_class = RWKV6Attention
    mixer_keys: ClassVar[dict[str, str]] = {"mode": "attn_mode"}
    block_class = RWKV6Block


class RWKV6ForCausalLM(FLAForCausalLM):
    """The language model of RWKV-6 (arXiv 2404.05892)."""

    config: RWKV6Config
    model_class = RWKV6Model


register(RWKV6Config, RWKV6Model, RWKV6ForCausalLM)
