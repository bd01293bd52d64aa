"""Gated slot attention (arXiv 2409.07146): softmax attention over a bounded number of slots that forget."""

from fla.ops.gsa.api import chunk_gsa, fused_recurrent_gsa
from fla.ops.gsa.reference import gsa_reference, naive_recurrent_gsa

__all__ = ["chunk_gsa", "fused_recurrent_gsa", "gsa_reference", "naive_recurrent_gsa"]
