"""The delta rule (arXiv 2406.06484): a matrix state that corrects what it stores under a key, and forgets nothing."""

from fla.ops.delta_rule.api import (
    chunk_delta_rule,
    fused_chunk_delta_rule,
    fused_recurrent_delta_rule,
    parallel_delta_rule,
)
from fla.ops.delta_rule.reference import delta_rule_recurrence, delta_rule_reference, naive_recurrent_delta_rule

__all__ = [
    "chunk_delta_rule",
    "delta_rule_recurrence",
    "delta_rule_reference",
    "fused_chunk_delta_rule",
    "fused_recurrent_delta_rule",
    "naive_recurrent_delta_rule",
    "parallel_delta_rule",
]
