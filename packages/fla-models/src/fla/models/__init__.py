"""Language models for Hugging Face transformers. Importing this registers them with its Auto classes."""

from fla.models.cache import Cache
from fla.models.gla import GLAConfig, GLAForCausalLM, GLAModel
from fla.models.hgrn2 import HGRN2Config, HGRN2ForCausalLM, HGRN2Model
from fla.models.lightnet import LightNetConfig, LightNetForCausalLM, LightNetModel
from fla.models.retnet import RetNetConfig, RetNetForCausalLM, RetNetModel
from fla.models.rwkv6 import RWKV6Config, RWKV6ForCausalLM, RWKV6Model
from fla.models.simple_gla import SimpleGLAConfig, SimpleGLAForCausalLM, SimpleGLAModel
from fla.models.transformer import TransformerConfig, TransformerForCausalLM, TransformerModel

__all__ = [
    "Cache",
    "GLAConfig",
    "GLAForCausalLM",
    "GLAModel",
    "HGRN2Config",
    "HGRN2ForCausalLM",
    "HGRN2Model",
    "LightNetConfig",
    "LightNetForCausalLM",
    "LightNetModel",
    "RetNetConfig",
    "RetNetForCausalLM",
    "RetNetModel",
    "RWKV6Config",
    "RWKV6ForCausalLM",
    "RWKV6Model",
    "SimpleGLAConfig",
    "SimpleGLAForCausalLM",
    "SimpleGLAModel",
    "TransformerConfig",
    "TransformerForCausalLM",
    "TransformerModel",
]
