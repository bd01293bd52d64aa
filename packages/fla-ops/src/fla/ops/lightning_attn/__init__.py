"""Lightning attention (arXiv 2405.17381): linear attention with decays that are fixed by head and layer."""

from fla.ops.lightning_attn.api import chunk_lightning_attn, fused_recurrent_lightning_attn
from fla.ops.lightning_attn.reference import lightning_attn_reference, naive_recurrent_lightning_attn

__all__ = [
    "chunk_lightning_attn",
    "fused_recurrent_lightning_attn",
    "lightning_attn_reference",
    "naive_recurrent_lightning_attn",
]
