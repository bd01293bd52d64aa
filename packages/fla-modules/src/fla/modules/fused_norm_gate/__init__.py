"""Norms whose result is multiplied by the activation of a gate."""

from fla.modules.fused_norm_gate.api import layer_norm_gated, rms_norm_gated
from fla.modules.fused_norm_gate.layer import FusedLayerNormGated, FusedRMSNormGated

__all__ = ["FusedLayerNormGated", "FusedRMSNormGated", "layer_norm_gated", "rms_norm_gated"]
