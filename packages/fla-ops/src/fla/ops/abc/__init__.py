"""Attention with bounded memory control (arXiv 2110.02488): slots whose writes always sum to one."""

from fla.ops.abc.api import chunk_abc, fused_recurrent_abc
from fla.ops.abc.reference import abc_reference, naive_recurrent_abc

__all__ = ["abc_reference", "chunk_abc", "fused_recurrent_abc", "naive_recurrent_abc"]
