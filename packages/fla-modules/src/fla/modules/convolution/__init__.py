"""The short causal convolution over time, one filter per channel, and its one-step form for decoding."""

from fla.modules.convolution.api import causal_conv1d, causal_conv1d_update
from fla.modules.convolution.layer import ShortConvolution

__all__ = ["ShortConvolution", "causal_conv1d", "causal_conv1d_update"]
