"""Building blocks that families share: any device, differentiable."""

from fla.ops.utils.logcumsumexp import normalised_writes, running_logsumexp

__all__ = ["normalised_writes", "running_logsumexp"]
