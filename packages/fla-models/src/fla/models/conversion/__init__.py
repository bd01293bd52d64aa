"""Weights of other programs' models as ours, and back: the same numbers under other names, never other numbers."""

from fla.models.conversion.checkpoints import TYPES, convert_checkpoint
from fla.models.conversion.mamba import (
    mamba2_from_state_spaces,
    mamba2_from_transformers,
    mamba2_to_state_spaces,
    mamba2_to_transformers,
    mamba_from_state_spaces,
    mamba_from_transformers,
    mamba_to_state_spaces,
    mamba_to_transformers,
)
from fla.models.conversion.rwkv import rwkv6_from_release, rwkv6_to_release, rwkv7_from_release, rwkv7_to_release
from fla.models.conversion.transformer import transformer_from_transformers, transformer_to_transformers

__all__ = [
    "TYPES",
    "convert_checkpoint",
    "mamba2_from_state_spaces",
    "mamba2_from_transformers",
    "mamba2_to_state_spaces",
    "mamba2_to_transformers",
    "mamba_from_state_spaces",
    "mamba_from_transformers",
    "mamba_to_state_spaces",
    "mamba_to_transformers",
    "rwkv6_from_release",
    "rwkv6_to_release",
    "rwkv7_from_release",
    "rwkv7_to_release",
    "transformer_from_transformers",
    "transformer_to_transformers",
]
