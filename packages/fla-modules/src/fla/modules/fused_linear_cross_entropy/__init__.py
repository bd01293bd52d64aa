"""The output layer and its cross entropy in one, chunk by chunk, so that the logits never exist at once."""

from fla.modules.fused_linear_cross_entropy.api import fused_linear_cross_entropy_loss
from fla.modules.fused_linear_cross_entropy.layer import FusedLinearCrossEntropyLoss

__all__ = ["FusedLinearCrossEntropyLoss", "fused_linear_cross_entropy_loss"]
