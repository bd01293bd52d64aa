"""Scaling rows to unit length."""

from fla.modules.l2norm.api import l2_norm, l2norm
from fla.modules.l2norm.layer import L2Norm

__all__ = ["L2Norm", "l2_norm", "l2norm"]
