"""HGRN's recurrence (arXiv 2311.04823): every channel a state of its own that decays and adds its input."""

from fla.ops.hgrn.api import chunk_hgrn, fused_recurrent_hgrn
from fla.ops.hgrn.reference import hgrn_reference, naive_recurrent_hgrn

__all__ = ["chunk_hgrn", "fused_recurrent_hgrn", "hgrn_reference", "naive_recurrent_hgrn"]
