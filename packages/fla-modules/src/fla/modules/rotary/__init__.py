"""Rotary position embedding (arXiv 2104.09864), with the decay of xPos (arXiv 2212.10554) where asked for."""

from fla.modules.rotary.api import rotary_embedding
from fla.modules.rotary.layer import RotaryEmbedding

__all__ = ["RotaryEmbedding", "rotary_embedding"]
