"""ReBased: attention whose weights are the squares of scores, in linear time."""

from fla.ops.rebased.api import parallel_rebased
from fla.ops.rebased.reference import naive_parallel_rebased, naive_recurrent_rebased, rebased_reference

__all__ = ["naive_parallel_rebased", "naive_recurrent_rebased", "parallel_rebased", "rebased_reference"]
