"""Retention (arXiv 2307.08621): linear attention whose heads forget at fixed rates."""

from fla.ops.retention.api import (
    chunk_retention,
    fused_chunk_retention,
    fused_recurrent_retention,
    parallel_retention,
)
from fla.ops.retention.reference import naive_retention, retention_reference

__all__ = [
    "chunk_retention",
    "fused_chunk_retention",
    "fused_recurrent_retention",
    "naive_retention",
    "parallel_retention",
    "retention_reference",
]
