"""Linear attention and state-space models for long text: kernels, modules, layers and models.

This is the menu: every public name of the four parts can be imported from here, and a part is
loaded the first time one of its names is asked for. ``import fla`` itself loads neither torch
nor transformers.
"""

import pkgutil
from typing import TYPE_CHECKING, Any

__path__ = pkgutil.extend_path(__path__, __name__)
__version__ = "1.0.0.dev0"

_PARTS = ("ops", "modules", "layers", "models", "utils")

#: Public name -> the module that defines it. The imports below say the same to type checkers.
_MENU = {
    "chunk_abc": "fla.ops.abc",
    "fused_recurrent_abc": "fla.ops.abc",
    "chunk_comba": "fla.ops.comba",
    "fused_recurrent_comba": "fla.ops.comba",
    "chunk_delta_rule": "fla.ops.delta_rule",
    "fused_recurrent_delta_rule": "fla.ops.delta_rule",
    "chunk_gated_delta_product": "fla.ops.gated_delta_product",
    "fused_recurrent_gated_delta_product": "fla.ops.gated_delta_product",
    "chunk_gated_delta_rule": "fla.ops.gated_delta_rule",
    "fused_recurrent_gated_delta_rule": "fla.ops.gated_delta_rule",
    "chunk_gla": "fla.ops.gla",
    "fused_recurrent_gla": "fla.ops.gla",
    "chunk_gsa": "fla.ops.gsa",
    "fused_recurrent_gsa": "fla.ops.gsa",
    "chunk_hgrn": "fla.ops.hgrn",
    "fused_recurrent_hgrn": "fla.ops.hgrn",
    "chunk_kda": "fla.ops.kda",
    "fused_recurrent_kda": "fla.ops.kda",
    "chunk_lightning_attn": "fla.ops.lightning_attn",
    "fused_recurrent_lightning_attn": "fla.ops.lightning_attn",
    "parallel_based": "fla.ops.based",
    "chunk_linear_attn": "fla.ops.linear_attn",
    "fused_recurrent_linear_attn": "fla.ops.linear_attn",
    "parallel_rebased": "fla.ops.rebased",
    "chunk_retention": "fla.ops.retention",
    "fused_recurrent_retention": "fla.ops.retention",
    "chunk_rwkv6": "fla.ops.rwkv6",
    "fused_recurrent_rwkv6": "fla.ops.rwkv6",
    "chunk_rwkv7": "fla.ops.rwkv7",
    "fused_recurrent_rwkv7": "fla.ops.rwkv7",
    "chunk_simple_gla": "fla.ops.simple_gla",
    "fused_recurrent_simple_gla": "fla.ops.simple_gla",
    "fused_recurrent_ssd": "fla.ops.ssd",
    "mamba_chunk_scan": "fla.ops.ssd",
    "selective_scan": "fla.ops.mamba",
    "selective_state_update": "fla.ops.mamba",
    "BitLinear": "fla.modules",
    "FusedBitLinear": "fla.modules",
    "FusedCrossEntropyLoss": "fla.modules",
    "FusedLinearCrossEntropyLoss": "fla.modules",
    "FusedRMSNormGated": "fla.modules",
    "GatedMLP": "fla.modules",
    "GroupNorm": "fla.modules",
    "LayerNorm": "fla.modules",
    "RMSNorm": "fla.modules",
    "RotaryEmbedding": "fla.modules",
    "ShortConvolution": "fla.modules",
    "ABCAttention": "fla.layers",
    "Attention": "fla.layers",
    "BasedLinearAttention": "fla.layers",
    "BitAttention": "fla.layers",
    "Comba": "fla.layers",
    "DeltaNet": "fla.layers",
    "GatedDeltaNet": "fla.layers",
    "GatedDeltaProduct": "fla.layers",
    "GatedLinearAttention": "fla.layers",
    "GatedShortConvolution": "fla.layers",
    "GatedSlotAttention": "fla.layers",
    "HGRNAttention": "fla.layers",
    "HGRN2Attention": "fla.layers",
    "KimiDeltaAttention": "fla.layers",
    "LightNetAttention": "fla.layers",
    "LinearAttention": "fla.layers",
    "Mamba": "fla.layers",
    "Mamba2": "fla.layers",
    "MultiScaleRetention": "fla.layers",
    "MultiheadLatentAttention": "fla.layers",
    "ReBasedLinearAttention": "fla.layers",
    "RWKV6Attention": "fla.layers",
    "RWKV7Attention": "fla.layers",
    "SimpleGatedLinearAttention": "fla.layers",
    "ABCConfig": "fla.models",
    "ABCForCausalLM": "fla.models",
    "ABCModel": "fla.models",
    "BasedConfig": "fla.models",
    "BasedForCausalLM": "fla.models",
    "BasedModel": "fla.models",
    "BitNetConfig": "fla.models",
    "BitNetForCausalLM": "fla.models",
    "BitNetModel": "fla.models",
    "CombaConfig": "fla.models",
    "CombaForCausalLM": "fla.models",
    "CombaModel": "fla.models",
    "DeltaNetConfig": "fla.models",
    "DeltaNetForCausalLM": "fla.models",
    "DeltaNetModel": "fla.models",
    "GatedDeltaNetConfig": "fla.models",
    "GatedDeltaNetForCausalLM": "fla.models",
    "GatedDeltaNetModel": "fla.models",
    "GatedDeltaProductConfig": "fla.models",
    "GatedDeltaProductForCausalLM": "fla.models",
    "GatedDeltaProductModel": "fla.models",
    "GLAConfig": "fla.models",
    "GLAForCausalLM": "fla.models",
    "GLAModel": "fla.models",
    "GSAConfig": "fla.models",
    "GSAForCausalLM": "fla.models",
    "GSAModel": "fla.models",
    "HGRNConfig": "fla.models",
    "HGRNForCausalLM": "fla.models",
    "HGRNModel": "fla.models",
    "HGRN2Config": "fla.models",
    "HGRN2ForCausalLM": "fla.models",
    "HGRN2Model": "fla.models",
    "KDAConfig": "fla.models",
    "KDAForCausalLM": "fla.models",
    "KDAModel": "fla.models",
    "LightNetConfig": "fla.models",
    "LightNetForCausalLM": "fla.models",
    "LightNetModel": "fla.models",
    "LinearAttentionConfig": "fla.models",
    "LinearAttentionForCausalLM": "fla.models",
    "LinearAttentionModel": "fla.models",
    "MLAConfig": "fla.models",
    "MLAForCausalLM": "fla.models",
    "MLAModel": "fla.models",
    "MambaConfig": "fla.models",
    "MambaForCausalLM": "fla.models",
    "MambaModel": "fla.models",
    "Mamba2Config": "fla.models",
    "Mamba2ForCausalLM": "fla.models",
    "Mamba2Model": "fla.models",
    "ReBasedConfig": "fla.models",
    "ReBasedForCausalLM": "fla.models",
    "ReBasedModel": "fla.models",
    "RetNetConfig": "fla.models",
    "RetNetForCausalLM": "fla.models",
    "RetNetModel": "fla.models",
    "RWKV6Config": "fla.models",
    "RWKV6ForCausalLM": "fla.models",
    "RWKV6Model": "fla.models",
    "RWKV7Config": "fla.models",
    "RWKV7ForCausalLM": "fla.models",
    "RWKV7Model": "fla.models",
    "SambaConfig": "fla.models",
    "SambaForCausalLM": "fla.models",
    "SambaModel": "fla.models",
    "SimpleGLAConfig": "fla.models",
    "SimpleGLAForCausalLM": "fla.models",
    "SimpleGLAModel": "fla.models",
    "TransformerConfig": "fla.models",
    "TransformerForCausalLM": "fla.models",
    "TransformerModel": "fla.models",
}

__all__ = [*_MENU, *_PARTS, "__version__"]

if TYPE_CHECKING:  # `as` marks what is offered again: type checkers do not follow the menu
    from fla import layers as layers, models as models, modules as modules, ops as ops, utils as utils
    from fla.layers import (
        ABCAttention as ABCAttention,
        Attention as Attention,
        BasedLinearAttention as BasedLinearAttention,
        BitAttention as BitAttention,
        Comba as Comba,
        DeltaNet as DeltaNet,
        GatedDeltaNet as GatedDeltaNet,
        GatedDeltaProduct as GatedDeltaProduct,
        GatedLinearAttention as GatedLinearAttention,
        GatedShortConvolution as GatedShortConvolution,
        GatedSlotAttention as GatedSlotAttention,
        HGRN2Attention as HGRN2Attention,
        HGRNAttention as HGRNAttention,
        KimiDeltaAttention as KimiDeltaAttention,
        LightNetAttention as LightNetAttention,
        LinearAttention as LinearAttention,
        Mamba as Mamba,
        Mamba2 as Mamba2,
        MultiheadLatentAttention as MultiheadLatentAttention,
        MultiScaleRetention as MultiScaleRetention,
        ReBasedLinearAttention as ReBasedLinearAttention,
        RWKV6Attention as RWKV6Attention,
        RWKV7Attention as RWKV7Attention,
        SimpleGatedLinearAttention as SimpleGatedLinearAttention,
    )
    from fla.models import (
        ABCConfig as ABCConfig,
        ABCForCausalLM as ABCForCausalLM,
        ABCModel as ABCModel,
        BasedConfig as BasedConfig,
        BasedForCausalLM as BasedForCausalLM,
        BasedModel as BasedModel,
        BitNetConfig as BitNetConfig,
        BitNetForCausalLM as BitNetForCausalLM,
        BitNetModel as BitNetModel,
        CombaConfig as CombaConfig,
        CombaForCausalLM as CombaForCausalLM,
        CombaModel as CombaModel,
        DeltaNetConfig as DeltaNetConfig,
        DeltaNetForCausalLM as DeltaNetForCausalLM,
        DeltaNetModel as DeltaNetModel,
        GatedDeltaNetConfig as GatedDeltaNetConfig,
        GatedDeltaNetForCausalLM as GatedDeltaNetForCausalLM,
        GatedDeltaNetModel as GatedDeltaNetModel,
        GatedDeltaProductConfig as GatedDeltaProductConfig,
        GatedDeltaProductForCausalLM as GatedDeltaProductForCausalLM,
        GatedDeltaProductModel as GatedDeltaProductModel,
        GLAConfig as GLAConfig,
        GLAForCausalLM as GLAForCausalLM,
        GLAModel as GLAModel,
        GSAConfig as GSAConfig,
        GSAForCausalLM as GSAForCausalLM,
        GSAModel as GSAModel,
        HGRN2Config as HGRN2Config,
        HGRN2ForCausalLM as HGRN2ForCausalLM,
        HGRN2Model as HGRN2Model,
        HGRNConfig as HGRNConfig,
        HGRNForCausalLM as HGRNForCausalLM,
        HGRNModel as HGRNModel,
        KDAConfig as KDAConfig,
        KDAForCausalLM as KDAForCausalLM,
        KDAModel as KDAModel,
        LightNetConfig as LightNetConfig,
        LightNetForCausalLM as LightNetForCausalLM,
        LightNetModel as LightNetModel,
        LinearAttentionConfig as LinearAttentionConfig,
        LinearAttentionForCausalLM as LinearAttentionForCausalLM,
        LinearAttentionModel as LinearAttentionModel,
        Mamba2Config as Mamba2Config,
        Mamba2ForCausalLM as Mamba2ForCausalLM,
        Mamba2Model as Mamba2Model,
        MambaConfig as MambaConfig,
        MambaForCausalLM as MambaForCausalLM,
        MambaModel as MambaModel,
        MLAConfig as MLAConfig,
        MLAForCausalLM as MLAForCausalLM,
        MLAModel as MLAModel,
        ReBasedConfig as ReBasedConfig,
        ReBasedForCausalLM as ReBasedForCausalLM,
        ReBasedModel as ReBasedModel,
        RetNetConfig as RetNetConfig,
        RetNetForCausalLM as RetNetForCausalLM,
        RetNetModel as RetNetModel,
        RWKV6Config as RWKV6Config,
        RWKV6ForCausalLM as RWKV6ForCausalLM,
        RWKV6Model as RWKV6Model,
        RWKV7Config as RWKV7Config,
        RWKV7ForCausalLM as RWKV7ForCausalLM,
        RWKV7Model as RWKV7Model,
        SambaConfig as SambaConfig,
        SambaForCausalLM as SambaForCausalLM,
        SambaModel as SambaModel,
        SimpleGLAConfig as SimpleGLAConfig,
        SimpleGLAForCausalLM as SimpleGLAForCausalLM,
        SimpleGLAModel as SimpleGLAModel,
        TransformerConfig as TransformerConfig,
        TransformerForCausalLM as TransformerForCausalLM,
        TransformerModel as TransformerModel,
    )
    from fla.modules import (
        BitLinear as BitLinear,
        FusedBitLinear as FusedBitLinear,
        FusedCrossEntropyLoss as FusedCrossEntropyLoss,
        FusedLinearCrossEntropyLoss as FusedLinearCrossEntropyLoss,
        FusedRMSNormGated as FusedRMSNormGated,
        GatedMLP as GatedMLP,
        GroupNorm as GroupNorm,
        LayerNorm as LayerNorm,
        RMSNorm as RMSNorm,
        RotaryEmbedding as RotaryEmbedding,
        ShortConvolution as ShortConvolution,
    )
    from fla.ops.abc import chunk_abc as chunk_abc, fused_recurrent_abc as fused_recurrent_abc
    from fla.ops.based import parallel_based as parallel_based
    from fla.ops.comba import chunk_comba as chunk_comba, fused_recurrent_comba as fused_recurrent_comba
    from fla.ops.delta_rule import (
        chunk_delta_rule as chunk_delta_rule,
        fused_recurrent_delta_rule as fused_recurrent_delta_rule,
    )
    from fla.ops.gated_delta_product import (
        chunk_gated_delta_product as chunk_gated_delta_product,
        fused_recurrent_gated_delta_product as fused_recurrent_gated_delta_product,
    )
    from fla.ops.gated_delta_rule import (
        chunk_gated_delta_rule as chunk_gated_delta_rule,
        fused_recurrent_gated_delta_rule as fused_recurrent_gated_delta_rule,
    )
    from fla.ops.gla import chunk_gla as chunk_gla, fused_recurrent_gla as fused_recurrent_gla
    from fla.ops.gsa import chunk_gsa as chunk_gsa, fused_recurrent_gsa as fused_recurrent_gsa
    from fla.ops.hgrn import chunk_hgrn as chunk_hgrn, fused_recurrent_hgrn as fused_recurrent_hgrn
    from fla.ops.kda import chunk_kda as chunk_kda, fused_recurrent_kda as fused_recurrent_kda
    from fla.ops.lightning_attn import (
        chunk_lightning_attn as chunk_lightning_attn,
        fused_recurrent_lightning_attn as fused_recurrent_lightning_attn,
    )
    from fla.ops.linear_attn import (
        chunk_linear_attn as chunk_linear_attn,
        fused_recurrent_linear_attn as fused_recurrent_linear_attn,
    )
    from fla.ops.mamba import selective_scan as selective_scan, selective_state_update as selective_state_update
    from fla.ops.rebased import parallel_rebased as parallel_rebased
    from fla.ops.retention import (
        chunk_retention as chunk_retention,
        fused_recurrent_retention as fused_recurrent_retention,
    )
    from fla.ops.rwkv6 import chunk_rwkv6 as chunk_rwkv6, fused_recurrent_rwkv6 as fused_recurrent_rwkv6
    from fla.ops.rwkv7 import chunk_rwkv7 as chunk_rwkv7, fused_recurrent_rwkv7 as fused_recurrent_rwkv7
    from fla.ops.simple_gla import (
        chunk_simple_gla as chunk_simple_gla,
        fused_recurrent_simple_gla as fused_recurrent_simple_gla,
    )
    from fla.ops.ssd import fused_recurrent_ssd as fused_recurrent_ssd, mamba_chunk_scan as mamba_chunk_scan
else:

    def __getattr__(name: str) -> Any:
        from importlib import import_module

        if name in _MENU:
            value = getattr(import_module(_MENU[name]), name)
        elif name in _PARTS:
            value = import_module(f"fla.{name}")
        else:
            raise AttributeError(f"module 'fla' has no attribute {name!r}{_suggestion(name)}", name=name)
        globals()[name] = value
        return value


def _suggestion(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, __all__, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(near)}?" if near else "; dir(fla) lists what it has"


def __dir__() -> list[str]:
    return sorted(__all__)
