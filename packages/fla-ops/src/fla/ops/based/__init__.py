"""Based: attention by the second-order expansion of the exponential, in linear time."""

from fla.ops.based.api import fused_chunk_based, parallel_based
from fla.ops.based.reference import based_reference, naive_parallel_based, naive_recurrent_based

__all__ = ["based_reference", "fused_chunk_based", "naive_parallel_based", "naive_recurrent_based", "parallel_based"]
