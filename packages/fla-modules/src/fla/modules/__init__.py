"""The parts that layers and models are built of: norms, gated norms, convolutions, rotary embeddings, feature maps,
MLPs, losses.

Every name is loaded when it is first asked for. A function that is named as its module is taken from there, such as
``from fla.modules.token_shift import token_shift``.
"""

from typing import TYPE_CHECKING

#: Public name -> the module that defines it. The imports below say the same to type checkers.
_MENU = {
    "ACT2FN": "fla.modules.activations",
    "BitLinear": "fla.modules.fused_bitlinear",
    "DPFPFeatureMap": "fla.modules.feature_map",
    "ELUFeatureMap": "fla.modules.feature_map",
    "FusedBitLinear": "fla.modules.fused_bitlinear",
    "FusedCrossEntropyLoss": "fla.modules.fused_cross_entropy",
    "FusedLayerNormGated": "fla.modules.fused_norm_gate",
    "FusedLinearCrossEntropyLoss": "fla.modules.fused_linear_cross_entropy",
    "FusedRMSNormGated": "fla.modules.fused_norm_gate",
    "GELUFeatureMap": "fla.modules.feature_map",
    "GatedMLP": "fla.modules.mlp",
    "GroupNorm": "fla.modules.layernorm",
    "HadamardFeatureMap": "fla.modules.feature_map",
    "HedgehogFeatureMap": "fla.modules.feature_map",
    "L2Norm": "fla.modules.l2norm",
    "LayerNorm": "fla.modules.layernorm",
    "LearnableOuterProductFeatureMap": "fla.modules.feature_map",
    "LearnablePolySketchNonNegativeFeatureMap": "fla.modules.feature_map",
    "PackedBitLinear": "fla.modules.fused_bitlinear",
    "RMSNorm": "fla.modules.layernorm",
    "ReLUFeatureMap": "fla.modules.feature_map",
    "RebasedFeatureMap": "fla.modules.feature_map",
    "RotaryEmbedding": "fla.modules.rotary",
    "ShortConvolution": "fla.modules.convolution",
    "SigmoidFeatureMap": "fla.modules.feature_map",
    "SquaredReLUFeatureMap": "fla.modules.feature_map",
    "SwishFeatureMap": "fla.modules.feature_map",
    "T2RFeatureMap": "fla.modules.feature_map",
    "TaylorFeatureMap": "fla.modules.feature_map",
    "causal_conv1d": "fla.modules.convolution",
    "causal_conv1d_update": "fla.modules.convolution",
    "cross_entropy_loss": "fla.modules.fused_cross_entropy",
    "fused_linear_cross_entropy_loss": "fla.modules.fused_linear_cross_entropy",
    "group_norm": "fla.modules.layernorm",
    "l2_norm": "fla.modules.l2norm",
    "layer_norm": "fla.modules.layernorm",
    "layer_norm_gated": "fla.modules.fused_norm_gate",
    "rms_norm": "fla.modules.layernorm",
    "rms_norm_gated": "fla.modules.fused_norm_gate",
    "rotary_embedding": "fla.modules.rotary",
    "swiglu": "fla.modules.activations",
    "swiglu_linear": "fla.modules.activations",
}

__all__ = list(_MENU)

if TYPE_CHECKING:
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
else:
    from fla.utils.menu import lazy_names

    __getattr__ = lazy_names(__name__, _MENU)


def __dir__() -> list[str]:
    return sorted(__all__)
