"""The parts that layers and models are built of: norms, gated norms, convolutions, rotary embeddings, MLPs, losses.

Every name is loaded when it is first asked for.
"""

from typing import TYPE_CHECKING, Any

#: Public name -> the module that defines it. The imports below say the same to type checkers.
_MENU = {
    "ACT2FN": "fla.modules.activations",
    "FusedCrossEntropyLoss": "fla.modules.fused_cross_entropy",
    "FusedLayerNormGated": "fla.modules.fused_norm_gate",
    "FusedLinearCrossEntropyLoss": "fla.modules.fused_linear_cross_entropy",
    "FusedRMSNormGated": "fla.modules.fused_norm_gate",
    "GatedMLP": "fla.modules.mlp",
    "L2Norm": "fla.modules.l2norm",
    "LayerNorm": "fla.modules.layernorm",
    "RMSNorm": "fla.modules.layernorm",
    "RotaryEmbedding": "fla.modules.rotary",
    "ShortConvolution": "fla.modules.convolution",
    "causal_conv1d": "fla.modules.convolution",
    "causal_conv1d_update": "fla.modules.convolution",
    "cross_entropy_loss": "fla.modules.fused_cross_entropy",
    "fused_linear_cross_entropy_loss": "fla.modules.fused_linear_cross_entropy",
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
    from fla.modules.activations import ACT2FN as ACT2FN
    from fla.modules.activations import swiglu as swiglu
    from fla.modules.activations import swiglu_linear as swiglu_linear
    from fla.modules.convolution import ShortConvolution as ShortConvolution
    from fla.modules.convolution import causal_conv1d as causal_conv1d
    from fla.modules.convolution import causal_conv1d_update as causal_conv1d_update
    from fla.modules.fused_cross_entropy import FusedCrossEntropyLoss as FusedCrossEntropyLoss
    from fla.modules.fused_cross_entropy import cross_entropy_loss as cross_entropy_loss
    from fla.modules.fused_linear_cross_entropy import FusedLinearCrossEntropyLoss as FusedLinearCrossEntropyLoss
    from fla.modules.fused_linear_cross_entropy import (
        fused_linear_cross_entropy_loss as fused_linear_cross_entropy_loss,
    )
    from fla.modules.fused_norm_gate import FusedLayerNormGated as FusedLayerNormGated
    from fla.modules.fused_norm_gate import FusedRMSNormGated as FusedRMSNormGated
    from fla.modules.fused_norm_gate import layer_norm_gated as layer_norm_gated
    from fla.modules.fused_norm_gate import rms_norm_gated as rms_norm_gated
    from fla.modules.l2norm import L2Norm as L2Norm
    from fla.modules.l2norm import l2_norm as l2_norm
    from fla.modules.layernorm import LayerNorm as LayerNorm
    from fla.modules.layernorm import RMSNorm as RMSNorm
    from fla.modules.layernorm import layer_norm as layer_norm
    from fla.modules.layernorm import rms_norm as rms_norm
    from fla.modules.mlp import GatedMLP as GatedMLP
    from fla.modules.rotary import RotaryEmbedding as RotaryEmbedding
    from fla.modules.rotary import rotary_embedding as rotary_embedding
else:

    def __getattr__(name: str) -> Any:
        from importlib import import_module

        if name not in _MENU:
            raise AttributeError(f"module 'fla.modules' has no attribute {name!r}", name=name)
        value = getattr(import_module(_MENU[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
