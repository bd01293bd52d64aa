"""Layer norm (arXiv 1607.06450) and RMS norm (arXiv 1910.07467), with the residual added on the way."""

from fla.modules.layernorm.api import layer_norm, rms_norm
from fla.modules.layernorm.layer import LayerNorm, RMSNorm

__all__ = ["LayerNorm", "RMSNorm", "layer_norm", "rms_norm"]
