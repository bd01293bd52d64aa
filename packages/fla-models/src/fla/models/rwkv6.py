"""RWKV-6 (arXiv 2404.05892) as a language model."""

from typing import ClassVar

from huggingface_hub.dataclasses import strict

from fla.layers import RWKV6Attention, RWKV6FeedForward
from fla.models.base.modeling import FLAForCausalLM, FLAModel
from fla.models.base.registration import register
from fla.models.base.rwkv import RWKVBlock, RWKVConfig


@strict
class RWKV6Config(RWKVConfig):
    """The config of :class:`RWKV6ForCausalLM`.

    Keys that :class:`FLAConfig` does not have are arguments of :class:`fla.layers.RWKV6Attention`; ``attn_mode`` is its
    ``mode``. ``norm_first`` normalises the embeddings, and ``norm_bias`` gives the norms of the hidden states a bias.
    ``output_norm_eps`` is the ``norm_eps`` of the layer, for the norm of each head's output; that of the model unless
    given.
    """

    model_type = "rwkv6"
    expand_k: int | float = 0.5
    expand_v: int | float = 1.0
    hidden_ratio: int | float | None = 3.5
    num_heads: int = 4
    proj_low_rank_dim: int = 32
    gate_low_rank_dim: int = 64
    output_norm_eps: int | float | None = None

    @property
    def mixer_norm_eps(self) -> float:
        """The ``norm_eps`` of the layers."""
        return self.norm_eps if self.output_norm_eps is None else self.output_norm_eps


class RWKV6Block(RWKVBlock):
    """A block of RWKV-6's time mixing and channel mixing."""

    channel_mixing = RWKV6FeedForward


class RWKV6Model(FLAModel):
    """Blocks of RWKV-6's time mixing and channel mixing."""

    config: RWKV6Config
    mixer_class = RWKV6Attention
    mixer_keys: ClassVar[dict[str, str]] = {"mode": "attn_mode", "norm_eps": "mixer_norm_eps"}
    block_class = RWKV6Block


class RWKV6ForCausalLM(FLAForCausalLM):
    """The language model of RWKV-6 (arXiv 2404.05892)."""

    config: RWKV6Config
    model_class = RWKV6Model


register(RWKV6Config, RWKV6Model, RWKV6ForCausalLM)
