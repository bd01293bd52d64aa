"""Cross entropy over logits, with the gradient of the logits written in one pass, in place if asked for."""

from fla.modules.fused_cross_entropy.api import cross_entropy_loss
from fla.modules.fused_cross_entropy.layer import FusedCrossEntropyLoss

__all__ = ["FusedCrossEntropyLoss", "cross_entropy_loss"]
