"""The public names: each once, for Python and for type checkers alike."""

from fla.modules.activations import ACT2FN as ACT2FN, swiglu as swiglu, swiglu_linear as swiglu_linear
from fla.modules.convolution import (
    ShortConvolution as ShortConvolution,
    causal_conv1d as causal_conv1d,
    causal_conv1d_update as causal_conv1d_update,
)
from fla.modules.feature_map import (
    DPFPFeatureMap as DPFPFeatureMap,
    ELUFeatureMap as ELUFeatureMap,
    GELUFeatureMap as GELUFeatureMap,
    HadamardFeatureMap as HadamardFeatureMap,
    HedgehogFeatureMap as HedgehogFeatureMap,
    LearnableOuterProductFeatureMap as LearnableOuterProductFeatureMap,
    LearnablePolySketchNonNegativeFeatureMap as LearnablePolySketchNonNegativeFeatureMap,
    RebasedFeatureMap as RebasedFeatureMap,
    ReLUFeatureMap as ReLUFeatureMap,
    SigmoidFeatureMap as SigmoidFeatureMap,
    SquaredReLUFeatureMap as SquaredReLUFeatureMap,
    SwishFeatureMap as SwishFeatureMap,
    T2RFeatureMap as T2RFeatureMap,
    TaylorFeatureMap as TaylorFeatureMap,
)
from fla.modules.fused_bitlinear import (
    BitLinear as BitLinear,
    FusedBitLinear as FusedBitLinear,
    PackedBitLinear as PackedBitLinear,
)
from fla.modules.fused_cross_entropy import (
    FusedCrossEntropyLoss as FusedCrossEntropyLoss,
    cross_entropy_loss as cross_entropy_loss,
)
from fla.modules.fused_linear_cross_entropy import (
    FusedLinearCrossEntropyLoss as FusedLinearCrossEntropyLoss,
    fused_linear_cross_entropy_loss as fused_linear_cross_entropy_loss,
)
from fla.modules.fused_norm_gate import (
    FusedLayerNormGated as FusedLayerNormGated,
    FusedRMSNormGated as FusedRMSNormGated,
    layer_norm_gated as layer_norm_gated,
    rms_norm_gated as rms_norm_gated,
)
from fla.modules.l2norm import L2Norm as L2Norm, l2_norm as l2_norm
from fla.modules.layernorm import (
    GroupNorm as GroupNorm,
    LayerNorm as LayerNorm,
    RMSNorm as RMSNorm,
    group_norm as group_norm,
    layer_norm as layer_norm,
    rms_norm as rms_norm,
)
from fla.modules.mlp import GatedMLP as GatedMLP
from fla.modules.rotary import RotaryEmbedding as RotaryEmbedding, rotary_embedding as rotary_embedding

__all__: list[str]
