"""The public names: each once, for Python and for type checkers alike."""

import pkgutil

__path__ = pkgutil.extend_path(__path__, __name__)
__version__: str
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
from fla.ops.retention import chunk_retention as chunk_retention, fused_recurrent_retention as fused_recurrent_retention
from fla.ops.rwkv6 import chunk_rwkv6 as chunk_rwkv6, fused_recurrent_rwkv6 as fused_recurrent_rwkv6
from fla.ops.rwkv7 import chunk_rwkv7 as chunk_rwkv7, fused_recurrent_rwkv7 as fused_recurrent_rwkv7
from fla.ops.simple_gla import (
    chunk_simple_gla as chunk_simple_gla,
    fused_recurrent_simple_gla as fused_recurrent_simple_gla,
)
from fla.ops.ssd import fused_recurrent_ssd as fused_recurrent_ssd, mamba_chunk_scan as mamba_chunk_scan

__all__: list[str]
