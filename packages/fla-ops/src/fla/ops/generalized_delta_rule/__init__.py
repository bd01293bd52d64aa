"""The generalized delta rule (arXiv 2503.14456): a state whose transition is diagonal plus low rank."""

from fla.ops.generalized_delta_rule.api import (
    chunk_dplr_delta_rule,
    chunk_iplr_delta_rule,
    fused_recurrent_dplr_delta_rule,
    fused_recurrent_iplr_delta_rule,
)
from fla.ops.generalized_delta_rule.reference import (
    dplr_recurrence,
    generalized_delta_rule_reference,
    iplr_recurrence,
    naive_recurrent_dplr_delta_rule,
)

__all__ = [
    "chunk_dplr_delta_rule",
    "chunk_iplr_delta_rule",
    "dplr_recurrence",
    "fused_recurrent_dplr_delta_rule",
    "fused_recurrent_iplr_delta_rule",
    "generalized_delta_rule_reference",
    "iplr_recurrence",
    "naive_recurrent_dplr_delta_rule",
]
