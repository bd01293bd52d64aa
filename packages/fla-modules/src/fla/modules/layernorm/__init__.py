"""Layer norm (arXiv 1607.06450), RMS norm (arXiv 1910.07467) and group norm (arXiv 1803.08494) over the channels of a
token, with the residual added on the way."""

from fla.modules.layernorm.api import group_norm, layer_norm, rms_norm
from fla.modules.layernorm.layer import GroupNorm, LayerNorm, RMSNorm

__all__ = ["GroupNorm", "LayerNorm", "RMSNorm", "group_norm", "layer_norm", "rms_norm"]
