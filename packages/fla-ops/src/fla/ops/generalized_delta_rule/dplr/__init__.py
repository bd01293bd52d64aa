"""The generalized delta rule with decay, under the name that other projects import."""

from fla.ops.generalized_delta_rule.api import chunk_dplr_delta_rule, fused_recurrent_dplr_delta_rule

__all__ = ["chunk_dplr_delta_rule", "fused_recurrent_dplr_delta_rule"]
