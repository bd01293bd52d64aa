"""Causal softmax attention (arXiv 1706.03762) on PyTorch's own kernels: grouped heads, windows, packed sequences."""

from fla.ops.attn.api import parallel_attn
from fla.ops.attn.reference import attn_reference, naive_parallel_attn

__all__ = ["attn_reference", "naive_parallel_attn", "parallel_attn"]
