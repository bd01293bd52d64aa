"""Linear attention with one decay per head and step, per head, or none: the engine of all scalar-decay families."""

from fla.ops.simple_gla.api import (
    chunk_simple_gla,
    fused_chunk_simple_gla,
    fused_recurrent_simple_gla,
    parallel_simple_gla,
)
from fla.ops.simple_gla.reference import naive_recurrent_simple_gla, simple_gla_reference

__all__ = [
    "chunk_simple_gla",
    "fused_chunk_simple_gla",
    "fused_recurrent_simple_gla",
    "naive_recurrent_simple_gla",
    "parallel_simple_gla",
    "simple_gla_reference",
]
