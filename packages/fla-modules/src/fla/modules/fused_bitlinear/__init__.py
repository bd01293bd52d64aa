"""Linear layers with ternary weights and 8-bit activations (BitNet b1.58, arXiv 2402.17764)."""

from fla.modules.fused_bitlinear.api import activation_quant, rms_norm_linear_quant, rms_norm_quant, weight_quant
from fla.modules.fused_bitlinear.layer import BitLinear, FusedBitLinear
from fla.modules.fused_bitlinear.packing import PackedBitLinear, pack_bitlinear, pack_ternary, unpack_ternary

__all__ = [
    "BitLinear",
    "FusedBitLinear",
    "PackedBitLinear",
    "activation_quant",
    "pack_bitlinear",
    "pack_ternary",
    "rms_norm_linear_quant",
    "rms_norm_quant",
    "unpack_ternary",
    "weight_quant",
]
