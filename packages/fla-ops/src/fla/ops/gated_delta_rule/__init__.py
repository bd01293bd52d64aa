"""The gated delta rule (arXiv 2412.06464): a matrix state that decays, and that corrects what it stores under a key."""

from fla.ops.gated_delta_rule.api import (
    chunk_gated_delta_rule,
    chunk_gdn,
    fused_recurrent_gated_delta_rule,
    fused_recurrent_gdn,
)
from fla.ops.gated_delta_rule.gate import fused_gdn_gate, naive_gdn_gate
from fla.ops.gated_delta_rule.reference import gated_delta_rule_reference, naive_recurrent_gated_delta_rule

__all__ = [
    "chunk_gated_delta_rule",
    "chunk_gdn",
    "fused_gdn_gate",
    "fused_recurrent_gated_delta_rule",
    "fused_recurrent_gdn",
    "gated_delta_rule_reference",
    "naive_gdn_gate",
    "naive_recurrent_gated_delta_rule",
]
