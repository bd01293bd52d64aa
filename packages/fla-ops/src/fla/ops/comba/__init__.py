"""Comba (arXiv 2506.02475): the gated delta rule that reads at a key of its own, before it decays."""

from fla.ops.comba.api import chunk_comba, fused_recurrent_comba
from fla.ops.comba.reference import naive_recurrent_comba

__all__ = ["chunk_comba", "fused_recurrent_comba", "naive_recurrent_comba"]
