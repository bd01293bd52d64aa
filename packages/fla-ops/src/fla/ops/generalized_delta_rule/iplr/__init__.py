"""The generalized delta rule without decay, under the name that other projects import."""

from fla.ops.generalized_delta_rule.api import chunk_iplr_delta_rule, fused_recurrent_iplr_delta_rule

__all__ = ["chunk_iplr_delta_rule", "fused_recurrent_iplr_delta_rule"]
