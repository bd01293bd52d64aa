"""A user's program, for mypy and pyright: the menu's names have their types and misspelt ones do not exist."""

import torch
from torch import nn

import fla
from fla import GatedLinearAttention, GLAConfig, GLAForCausalLM, RMSNorm, chunk_gla
from fla.ops.gla import chunk_gla as chunk_gla_from_its_home


def kernel(x: torch.Tensor) -> torch.Tensor:
    o, state = chunk_gla(x, x, x, -x.abs(), output_final_state=True)
    assert state is not None
    again, _ = chunk_gla_from_its_home(x, x, x, -x.abs(), initial_state=state)
    return o + again


def layer(x: torch.Tensor) -> nn.Module:
    mixer: nn.Module = GatedLinearAttention(hidden_size=x.shape[-1], num_heads=2)
    return nn.Sequential(RMSNorm(x.shape[-1]), mixer)


def model() -> GLAForCausalLM:
    config = GLAConfig(hidden_size=64, num_hidden_layers=2, num_heads=2, vocab_size=256)
    return GLAForCausalLM(config)


VERSION: str = fla.__version__
MISSPELT = fla.chunk_glaa  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
