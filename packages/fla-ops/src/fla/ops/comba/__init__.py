"""Comba (arXiv 2506.02475): the gated delta rule that reads at a key of its own, before it decays."""

from fla.ops.comba.api import chunk_comba, fused_recurrent_comba
from fla.ops.comba.reference import comba_reference, naive_recurrent_comba

__all__ = ["chunk_comba", "comba_reference", "fused_recurrent_comba", "naive_recurrent_comba"]
