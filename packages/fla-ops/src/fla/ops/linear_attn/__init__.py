"""Linear attention without decay, and on request divided by the sum of its weights."""

from fla.ops.linear_attn.api import chunk_linear_attn, fused_chunk_linear_attn, fused_recurrent_linear_attn
from fla.ops.linear_attn.reference import linear_attn_reference, naive_recurrent_linear_attn

__all__ = [
    "chunk_linear_attn",
    "fused_chunk_linear_attn",
    "fused_recurrent_linear_attn",
    "linear_attn_reference",
    "naive_recurrent_linear_attn",
]
