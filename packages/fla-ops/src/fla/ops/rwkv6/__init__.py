"""The recurrence of RWKV-6 (arXiv 2404.05892): gated linear attention that reads the state before it writes."""

from fla.ops.rwkv6.api import chunk_rwkv6, fused_recurrent_rwkv6
from fla.ops.rwkv6.reference import naive_recurrent_rwkv6, rwkv6_reference

__all__ = ["chunk_rwkv6", "fused_recurrent_rwkv6", "naive_recurrent_rwkv6", "rwkv6_reference"]
