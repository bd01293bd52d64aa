"""RWKV-7 (arXiv 2503.14456) as a language model."""

from typing import ClassVar

import torch
from huggingface_hub.dataclasses import strict
from torch import nn

from fla.layers import RWKV7Attention, RWKV7FeedForward
from fla.models.base.modeling import FLAForCausalLM, FLAModel
from fla.models.base.registration import register
from fla.models.base.rwkv import RWKVBlock, RWKVConfig


@strict
class RWKV7Config(RWKVConfig):
    """The config of :class:`RWKV7ForCausalLM`.

    Keys that :class:`FLAConfig` does not have are arguments of :class:`fla.layers.RWKV7Attention`; ``attn_mode`` is its
    ``mode``. ``value_dim`` may be a list, which must say the same of every layer. ``norm_first`` normalises the
    embeddings, and ``norm_bias`` gives the norms of the hidden states a bias.
    """

    model_type = "rwkv7"
    head_dim: int | None = 64
    num_heads: int | None = None
    value_dim: int | list[int] | None = None
    decay_low_rank_dim: int | None = 64
    gate_low_rank_dim: int | None = 128
    a_low_rank_dim: int | None = 64
    v_low_rank_dim: int | None = 16
    use_l2warp: bool = True

    def check(self) -> None:
        """Check as the base does, and that all layers have one width."""
        super().check()
        widths = self.value_dim
        if isinstance(widths, list) and (len(widths) != self.num_hidden_layers or len(set(widths)) != 1):
            raise ValueError(f"value_dim: expected one width {self.num_hidden_layers} times, got {widths}")

    @property
    def value_channels(self) -> int | None:
        """The one ``value_dim`` of all layers: each takes values of the first one."""
        return self.value_dim[0] if isinstance(self.value_dim, list) else self.value_dim


class RWKV7Block(RWKVBlock):
    """A block of RWKV-7's time mixing and channel mixing."""

    channel_mixing = RWKV7FeedForward


class RWKV7Model(FLAModel):
    """Blocks of RWKV-7's time mixing and channel mixing."""

    config: RWKV7Config
    mixer_class = RWKV7Attention
    mixer_keys: ClassVar[dict[str, str]] = {"mode": "attn_mode", "value_dim": "value_channels"}
    block_class = RWKV7Block

    def initial_values(self, num_hidden_layers: int) -> dict[str, torch.Tensor]:
        """Embeddings so small that they start alike; where they are the head as well, they start as usual."""
        if self.config.tie_word_embeddings or not self.config.norm_first:
            return {}
        weight = torch.empty(self.config.vocab_size, self.config.hidden_size).uniform_(-1e-4, 1e-4)
        if self.padding_idx is not None:
            weight[self.padding_idx] = 0
        return {"embeddings.weight": weight}


class RWKV7ForCausalLM(FLAForCausalLM):
    """The language model of RWKV-7 (arXiv 2503.14456)."""

    config: RWKV7Config
    model_class = RWKV7Model

    def initial_values(self, num_hidden_layers: int) -> dict[str, torch.Tensor]:
        """An orthogonal head, unless it is the embeddings."""
        if self.config.tie_word_embeddings:
            return {}
        shape = self.config.vocab_size, self.config.hidden_size
        gain = 0.5 * max(shape[0] / shape[1], 1) ** 0.5
        return {"lm_head.weight": nn.init.orthogonal_(torch.empty(shape, dtype=torch.float32), gain)}


register(RWKV7Config, RWKV7Model, RWKV7ForCausalLM)
