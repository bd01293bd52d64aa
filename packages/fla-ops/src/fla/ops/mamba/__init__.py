"""The selective scan of Mamba (arXiv 2312.00752), with the shapes and names of the package mamba-ssm."""

from fla.ops.mamba.api import selective_scan, selective_scan_fn, selective_state_update
from fla.ops.mamba.reference import mamba_reference, naive_selective_scan

__all__ = ["mamba_reference", "naive_selective_scan", "selective_scan", "selective_scan_fn", "selective_state_update"]
