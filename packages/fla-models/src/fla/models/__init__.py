"""Language models for Hugging Face transformers. Importing this makes them known to its Auto classes and Trainer.

Each file here is a model, and ``base`` holds the code that models share. ``train``, ``generate`` and ``convert`` are
commands, and ``commands`` holds the code that those share.
"""

from fla.models.abc import ABCConfig, ABCForCausalLM, ABCModel
from fla.models.base import (  # noqa: F401  # attributes of this package, as when they lay here
    backbone,
    cache,
    configuration,
    hybrid,
    losses,
    lower_bounds,
    modeling,
    registration,
)
from fla.models.base.cache import Cache
from fla.models.base.trainer import teach_weight_decay
from fla.models.based import BasedConfig, BasedForCausalLM, BasedModel
from fla.models.bitnet import BitNetConfig, BitNetForCausalLM, BitNetModel
from fla.models.comba import CombaConfig, CombaForCausalLM, CombaModel
from fla.models.delta_net import DeltaNetConfig, DeltaNetForCausalLM, DeltaNetModel
from fla.models.gated_deltanet import GatedDeltaNetConfig, GatedDeltaNetForCausalLM, GatedDeltaNetModel
from fla.models.gated_deltaproduct import (
    GatedDeltaProductConfig,
    GatedDeltaProductForCausalLM,
    GatedDeltaProductModel,
)
from fla.models.gla import GLAConfig, GLAForCausalLM, GLAModel
from fla.models.gsa import GSAConfig, GSAForCausalLM, GSAModel
from fla.models.hgrn import HGRNConfig, HGRNForCausalLM, HGRNModel
from fla.models.hgrn2 import HGRN2Config, HGRN2ForCausalLM, HGRN2Model
from fla.models.kda import KDAConfig, KDAForCausalLM, KDAModel
from fla.models.lightnet import LightNetConfig, LightNetForCausalLM, LightNetModel
from fla.models.linear_attn import LinearAttentionConfig, LinearAttentionForCausalLM, LinearAttentionModel
from fla.models.mamba import MambaConfig, MambaForCausalLM, MambaModel
from fla.models.mamba2 import Mamba2Config, Mamba2ForCausalLM, Mamba2Model
from fla.models.mla import MLAConfig, MLAForCausalLM, MLAModel
from fla.models.rebased import ReBasedConfig, ReBasedForCausalLM, ReBasedModel
from fla.models.retnet import RetNetConfig, RetNetForCausalLM, RetNetModel
from fla.models.rwkv6 import RWKV6Config, RWKV6ForCausalLM, RWKV6Model
from fla.models.rwkv7 import RWKV7Config, RWKV7ForCausalLM, RWKV7Model
from fla.models.samba import SambaConfig, SambaForCausalLM, SambaModel
from fla.models.simple_gla import SimpleGLAConfig, SimpleGLAForCausalLM, SimpleGLAModel
from fla.models.transformer import TransformerConfig, TransformerForCausalLM, TransformerModel
from fla.utils.moved import moved

teach_weight_decay()
moved(
    {
        "fla.models.backbone": "fla.models.base.backbone",
        "fla.models.cache": "fla.models.base.cache",
        "fla.models.configuration": "fla.models.base.configuration",
        "fla.models.hybrid": "fla.models.base.hybrid",
        "fla.models.losses": "fla.models.base.losses",
        "fla.models.lower_bounds": "fla.models.base.lower_bounds",
        "fla.models.modeling": "fla.models.base.modeling",
        "fla.models.registration": "fla.models.base.registration",
        "fla.models.conversion": "fla.models.convert",
        "fla.models.conversion.checkpoints": "fla.models.convert.weights.checkpoints",
        "fla.models.conversion.files": "fla.models.convert.weights.files",
        "fla.models.conversion.mamba": "fla.models.convert.weights.mamba",
        "fla.models.conversion.rwkv": "fla.models.convert.weights.rwkv",
        "fla.models.conversion.transformer": "fla.models.convert.weights.transformer",
    }
)

__all__ = [
    "ABCConfig",
    "ABCForCausalLM",
    "ABCModel",
    "BasedConfig",
    "BasedForCausalLM",
    "BasedModel",
    "BitNetConfig",
    "BitNetForCausalLM",
    "BitNetModel",
    "Cache",
    "CombaConfig",
    "CombaForCausalLM",
    "CombaModel",
    "DeltaNetConfig",
    "DeltaNetForCausalLM",
    "DeltaNetModel",
    "GLAConfig",
    "GLAForCausalLM",
    "GLAModel",
    "GSAConfig",
    "GSAForCausalLM",
    "GSAModel",
    "GatedDeltaNetConfig",
    "GatedDeltaNetForCausalLM",
    "GatedDeltaNetModel",
    "GatedDeltaProductConfig",
    "GatedDeltaProductForCausalLM",
    "GatedDeltaProductModel",
    "HGRN2Config",
    "HGRN2ForCausalLM",
    "HGRN2Model",
    "HGRNConfig",
    "HGRNForCausalLM",
    "HGRNModel",
    "KDAConfig",
    "KDAForCausalLM",
    "KDAModel",
    "LightNetConfig",
    "LightNetForCausalLM",
    "LightNetModel",
    "LinearAttentionConfig",
    "LinearAttentionForCausalLM",
    "LinearAttentionModel",
    "MLAConfig",
    "MLAForCausalLM",
    "MLAModel",
    "MambaConfig",
    "MambaForCausalLM",
    "MambaModel",
    "Mamba2Config",
    "Mamba2ForCausalLM",
    "Mamba2Model",
    "ReBasedConfig",
    "ReBasedForCausalLM",
    "ReBasedModel",
    "RetNetConfig",
    "RetNetForCausalLM",
    "RetNetModel",
    "RWKV6Config",
    "RWKV6ForCausalLM",
    "RWKV6Model",
    "RWKV7Config",
    "RWKV7ForCausalLM",
    "RWKV7Model",
    "SambaConfig",
    "SambaForCausalLM",
    "SambaModel",
    "SimpleGLAConfig",
    "SimpleGLAForCausalLM",
    "SimpleGLAModel",
    "TransformerConfig",
    "TransformerForCausalLM",
    "TransformerModel",
]
