"""Gated linear attention (arXiv 2312.06635): a matrix state whose rows decay by a gate per key channel."""

from fla.ops.gla.api import chunk_gla, fused_chunk_gla, fused_recurrent_gla
from fla.ops.gla.reference import gla_reference, naive_recurrent_gla

__all__ = ["chunk_gla", "fused_chunk_gla", "fused_recurrent_gla", "gla_reference", "naive_recurrent_gla"]
