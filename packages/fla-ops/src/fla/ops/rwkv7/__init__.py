"""RWKV-7's recurrence and the small steps around it (arXiv 2503.14456), on the generalized delta rule."""

from fla.ops.rwkv7.api import chunk_rwkv7, fused_mul_recurrent_rwkv7, fused_recurrent_rwkv7
from fla.ops.rwkv7.reference import naive_recurrent_rwkv7, rwkv7_reference
from fla.ops.rwkv7.steps import fused_addcmul_rwkv7, fused_k_rwkv7, gate_output_correction

__all__ = [
    "chunk_rwkv7",
    "fused_addcmul_rwkv7",
    "fused_k_rwkv7",
    "fused_mul_recurrent_rwkv7",
    "fused_recurrent_rwkv7",
    "gate_output_correction",
    "naive_recurrent_rwkv7",
    "rwkv7_reference",
]
