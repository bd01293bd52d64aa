"""Activations and gated linear units, each differentiable and accurate in half precision."""

from fla.modules.activations.api import (
    ACT2FN,
    bias_gelu,
    fast_gelu,
    identity,
    logsigmoid,
    powglu,
    sigmoid,
    sigmoidglu,
    sqrelu,
    swiglu,
    swiglu_linear,
    swish,
)

__all__ = [
    "ACT2FN",
    "bias_gelu",
    "fast_gelu",
    "identity",
    "logsigmoid",
    "powglu",
    "sigmoid",
    "sigmoidglu",
    "sqrelu",
    "swiglu",
    "swiglu_linear",
    "swish",
]
