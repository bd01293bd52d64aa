"""Checkpoints of other programs as ours, and back: ``python -m fla.models.convert``.

``command`` is the command line, and ``weights`` does the work. The functions here are for models in memory.
"""

from fla.models.convert.command import main
from fla.models.convert.weights.checkpoints import TYPES, convert_checkpoint
from fla.models.convert.weights.mamba import (
    mamba2_from_state_spaces,
    mamba2_from_transformers,
    mamba2_to_state_spaces,
    mamba2_to_transformers,
    mamba_from_state_spaces,
    mamba_from_transformers,
    mamba_to_state_spaces,
    mamba_to_transformers,
)
from fla.models.convert.weights.rwkv import rwkv6_from_release, rwkv6_to_release, rwkv7_from_release, rwkv7_to_release
from fla.models.convert.weights.transformer import transformer_from_transformers, transformer_to_transformers

__all__ = [
    "TYPES",
    "convert_checkpoint",
    "main",
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
