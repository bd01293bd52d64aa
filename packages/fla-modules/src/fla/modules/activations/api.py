"""The activations: one-liners where PyTorch has the fused function, gated linear units with a kernel of their own."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from fla.modules._checks import check_shape_of_x, check_tensor
from fla.modules.activations.ops import run_glu, run_swiglu_linear
from fla.modules.activations.reference import glu_ref
from fla.utils.backends import choose_backend
from fla.utils.validation import bind_shapes, check_same_device, check_same_dtype


def sigmoid(x: torch.Tensor) -> torch.Tensor:
    """``1 / (1 + exp(-x))``, elementwise."""
    return torch.sigmoid(x)


def logsigmoid(x: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """``log(sigmoid(x)) / temperature``, elementwise; safe for x of any size."""
    y = F.logsigmoid(x)
    return y if temperature == 1.0 else y / temperature


def swish(x: torch.Tensor) -> torch.Tensor:
    """``x * sigmoid(x)``, elementwise (SiLU; arXiv 1710.05941)."""
    return F.silu(x)


def sqrelu(x: torch.Tensor) -> torch.Tensor:
    """``max(x, 0) ** 2``, elementwise (arXiv 2109.08668)."""
    return F.relu(x).square()


def fast_gelu(x: torch.Tensor) -> torch.Tensor:
    """GELU by its tanh approximation, elementwise (arXiv 1606.08415)."""
    return F.gelu(x, approximate="tanh")


def bias_gelu(y: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """``fast_gelu(y + bias)`` for y ``[..., D]`` and bias ``[D]``."""
    return fast_gelu(y + bias)


def swiglu(x: torch.Tensor, y: torch.Tensor, backend: str | None = None) -> torch.Tensor:
    r"""Swish-gated linear unit (arXiv 2002.05202).

    .. math:: z = x \cdot \mathrm{sigmoid}(x) \cdot y

    Computed in float32 (float64 for float64 inputs) and rounded once. Differentiable once.

    Args:
        x: the gate, any shape; float32, bfloat16, float16, or float64 on the torch backend.
        y: the shape and dtype of x.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        z in the shape and dtype of x.

    Raises:
        TypeError: x is not a floating tensor, or y of another dtype.
        ValueError: y has another shape or device, or the backend cannot run here.
    """
    return _glu(x, y, "swish", 1.0, backend)


def sigmoidglu(x: torch.Tensor, y: torch.Tensor, backend: str | None = None) -> torch.Tensor:
    r"""Sigmoid-gated linear unit :math:`z = \mathrm{sigmoid}(x) \cdot y` (arXiv 1612.08083).

    Arguments, precision, result and errors are those of :func:`swiglu`.
    """
    return _glu(x, y, "sigmoid", 1.0, backend)


def powglu(x: torch.Tensor, y: torch.Tensor, power: float = 3.0, backend: str | None = None) -> torch.Tensor:
    r"""Power-gated linear unit.

    .. math::
        z = \mathrm{sigmoid}(x) \cdot f(x) \cdot y, \qquad
        f(x) = x^{power / (\sqrt x + 1)} \text{ for } x > 0 \text{, else } x

    Arguments, precision, result and errors are those of :func:`swiglu`, and in addition:

    Args:
        x: the gate, any shape.
        y: the shape and dtype of x.
        power: exponent for small positive x; above 0.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.
    """
    if power <= 0:
        raise ValueError(f"power: expected above 0, got {power}")
    return _glu(x, y, "power", power, backend)


def swiglu_linear(
    x: torch.Tensor,
    y: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    backend: str | None = None,
) -> torch.Tensor:
    r"""A linear map of a swish-gated linear unit: the second half of a SwiGLU block.

    .. math:: o = \mathrm{swiglu}(x, y)\, weight^\top + bias

    On the triton backend the product of x and y is not kept for the backward pass but computed again. Under autocast
    all four tensors are cast as PyTorch casts those of ``F.linear``.

    Args:
        x: the gate ``[..., D]``; float32, bfloat16, float16, or float64 on the torch backend.
        y: the shape and dtype of x.
        weight: ``[E, D]``.
        bias: ``[E]`` or None.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        o ``[..., E]``.

    Raises:
        TypeError: x is not a floating tensor, or another tensor of another dtype.
        ValueError: a shape or device that does not fit, or a backend that cannot run here.
    """
    device_type = x.device.type
    if torch.is_autocast_enabled(device_type):
        dtype = torch.get_autocast_dtype(device_type)
        x, y, weight, bias = (t if t is None else t.to(dtype) for t in (x, y, weight, bias))  # type: ignore[assignment]
    _check(x, y)
    check_same_dtype({"x": x, "weight": weight} if bias is None else {"x": x, "weight": weight, "bias": bias})
    check_same_device({"x": x, "weight": weight, "bias": bias})
    if x.ndim == 0:
        raise ValueError("x: expected shape [..., D], got []")
    bind_shapes({"weight": (weight, "E D"), "bias": (bias, "E?")}, known={"D": x.shape[-1]})
    if choose_backend(x, backend) != "triton":
        return F.linear(glu_ref(x, y, "swish", 1.0), weight, bias)
    return run_swiglu_linear(x, y, weight, bias)


def _glu(x: torch.Tensor, y: torch.Tensor, gate: str, power: float, backend: str | None) -> torch.Tensor:
    _check(x, y)
    if choose_backend(x, backend) != "triton":
        return glu_ref(x, y, gate, power)
    return run_glu(x, y, gate, power)


def _check(x: torch.Tensor, y: torch.Tensor) -> None:
    check_tensor("x", x)
    check_tensor("y", y, x.device)
    if y.dtype != x.dtype:
        raise TypeError(f"y: expected {x.dtype} as x, got {y.dtype}")
    check_shape_of_x("y", y, x)


def identity(x: torch.Tensor) -> torch.Tensor:
    """x itself."""
    return x


ACT2FN: dict[str, Callable[..., torch.Tensor]] = {
    "identity": identity,
    "relu": F.relu,
    "elu": F.elu,
    "tanh": torch.tanh,
    "sigmoid": sigmoid,
    "logsigmoid": logsigmoid,
    "silu": swish,
    "swish": swish,
    "sqrelu": sqrelu,
    "gelu": fast_gelu,
    "bias_gelu": bias_gelu,
}
"""Activation by the name that configs use."""
