"""State-space duality, the recurrence of Mamba-2, with the shapes and names of the package mamba-ssm."""

from fla.ops.ssd.api import fused_recurrent_ssd, mamba_chunk_scan, mamba_chunk_scan_combined
from fla.ops.ssd.reference import naive_recurrent_ssd, ssd_reference

__all__ = [
    "fused_recurrent_ssd",
    "mamba_chunk_scan",
    "mamba_chunk_scan_combined",
    "naive_recurrent_ssd",
    "ssd_reference",
]
