"""Language models for Hugging Face transformers. Importing this registers them with its Auto classes."""

from fla.models.cache import Cache
from fla.models.gla import GLAConfig, GLAForCausalLM, GLAModel
from fla.models.transformer import TransformerConfig, TransformerForCausalLM, TransformerModel

__all__ = [
    "Cache",
    "GLAConfig",
    "GLAForCausalLM",
    "GLAModel",
    "TransformerConfig",
    "TransformerForCausalLM",
    "TransformerModel",
]
