"""Kimi delta attention (arXiv 2510.26692): the gated delta rule with a decay of each key channel."""

from fla.ops.kda.api import chunk_kda, fused_recurrent_kda
from fla.ops.kda.gate import fused_kda_gate, naive_kda_gate, naive_kda_lowerbound_gate
from fla.ops.kda.reference import kda_reference, naive_recurrent_kda

__all__ = [
    "chunk_kda",
    "fused_kda_gate",
    "fused_recurrent_kda",
    "kda_reference",
    "naive_kda_gate",
    "naive_kda_lowerbound_gate",
    "naive_recurrent_kda",
]
