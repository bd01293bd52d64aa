"""The functional forms of the short convolution."""

from __future__ import annotations

import torch

from fla.modules.convolution.ops import run_conv_triton, run_update
from fla.modules.convolution.reference import causal_conv1d_ref, last_inputs
from fla.utils.backends import choose_backend
from fla.utils.validation import (
    bind_shapes,
    check_cu_seqlens,
    check_floating,
    check_not_empty,
    check_same_device,
    count_sequences,
    remembered,
    resolve_boundaries,
)
from fla.utils.varlen import boundaries

ACTIVATIONS = (None, "silu", "swish")


def causal_conv1d(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    activation: str | None = None,
    backend: str | None = None,
    cu_seqlens: torch.Tensor | None = None,
    cu_seqlens_cpu: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""Causal convolution over time with one short filter per channel.

    .. math:: y_t = \phi\Big(b + \sum_{w=0}^{W-1} weight_w \cdot x_{t - W + 1 + w}\Big) + residual_t

    Accumulated in float32 (float64 for float64 inputs). Differentiable once in every floating argument.

    Args:
        x: ``[B, T, D]``; float32, bfloat16, float16, or float64 on the torch backend.
        weight: ``[D, W]``; any floating dtype.
        bias: ``[D]``.
        residual: ``[B, T, D]``, added after the activation.
        initial_state: the W inputs before the first ``[N, D, W]``, newest last; zeros unless given.
        output_final_state: also return the last W inputs.
        activation: ``"silu"``, its other name ``"swish"``, or None.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.
        cu_seqlens: boundaries of packed sequences ``[N + 1]``, int32 or int64, from 0 to T; B must be 1. No filter
            reaches over a boundary.
        cu_seqlens_cpu: the same on the CPU. Alone it is used; beside ``cu_seqlens`` it must agree, which is checked on
            the CPU. On a GPU ``cu_seqlens`` decides; there only ``FLA_DEBUG=1`` compares, which waits for the device.

    Returns:
        ``(y, final_state)``: y ``[B, T, D]`` in the dtype of x; the state ``[N, D, W]`` likewise, None unless asked
        for.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: a shape or device that does not fit, an unknown activation, or a backend that cannot run here.
    """
    cu_seqlens = resolve_boundaries(x, cu_seqlens, cu_seqlens_cpu)
    activate = _check(x, weight, bias, residual, initial_state, cu_seqlens, activation)
    if choose_backend(x, backend) == "triton":
        y = run_conv_triton(x, weight, bias, residual, initial_state, activate, cu_seqlens)
    else:
        if cu_seqlens is not None and not torch.compiler.is_compiling():
            boundaries(cu_seqlens, x.shape[1])
        y = causal_conv1d_ref(x, weight, bias, residual, initial_state, activate, cu_seqlens)
    return y, last_inputs(x, initial_state, weight.shape[1], cu_seqlens) if output_final_state else None


@remembered
def _check(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    activation: str | None,
) -> bool:
    """Whether there is an activation."""
    sizes = bind_shapes(
        {"x": (x, "B T D"), "weight": (weight, "D W"), "bias": (bias, "D?"), "residual": (residual, "B T D?")}
    )
    check_not_empty(sizes)
    check_cu_seqlens(cu_seqlens, sizes["B"])
    sequences = {"N": count_sequences(cu_seqlens, sizes["B"])}
    bind_shapes({"initial_state": (initial_state, "N D W?")}, known={**sizes, **sequences})
    given = {"x": x, "weight": weight, "bias": bias, "residual": residual, "initial_state": initial_state}
    check_floating(given)
    check_same_device({**given, "cu_seqlens": cu_seqlens})
    return _activates(activation)


def causal_conv1d_update(
    x: torch.Tensor,
    cache: torch.Tensor,
    residual: torch.Tensor | None = None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    activation: str | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One step of :func:`causal_conv1d` for each of N sequences; the cache is updated in place. For decoding only.

    Args:
        x: the new inputs, ``[N, D]``, ``[N, 1, D]`` or ``[1, N, D]``.
        cache: the last W inputs ``[N, D, W]``, newest last; becomes the state after this step.
        residual: in the shape of x, added after the activation.
        weight: ``[D, W]``.
        bias: ``[D]``.
        activation: ``"silu"``, ``"swish"`` or None.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        ``(y, cache)``: y in the shape and dtype of x, and the cache that was given.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: a shape or device that does not fit, an unknown activation, or a backend that cannot run here.
    """
    activate = _check_step(x, cache, residual, weight, bias, activation)
    assert weight is not None
    flat = x.reshape(-1, x.shape[-1])
    flat_residual = None if residual is None else residual.reshape(-1, x.shape[-1])
    y = run_update(flat, cache, flat_residual, weight, bias, activate, choose_backend(x, backend))
    return y.view(x.shape), cache


@remembered
def _check_step(
    x: torch.Tensor,
    cache: torch.Tensor,
    residual: torch.Tensor | None,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    activation: str | None,
) -> bool:
    """Whether there is an activation."""
    sizes = bind_shapes({"cache": (cache, "N D W"), "weight": (weight, "D W"), "bias": (bias, "D?")})
    if tuple(x.shape) not in [(*steps, sizes["D"]) for steps in ((sizes["N"],), (sizes["N"], 1), (1, sizes["N"]))]:
        raise ValueError(
            f"x: expected one step for each of N={sizes['N']} sequences, [N, D], [N, 1, D] or [1, N, D] with "
            f"D={sizes['D']}, got {list(x.shape)}"
        )
    if residual is not None and residual.shape != x.shape:
        raise ValueError(f"residual: expected shape {list(x.shape)} as x, got {list(residual.shape)}")
    given = {"x": x, "cache": cache, "weight": weight, "bias": bias, "residual": residual}
    check_floating(given)
    check_same_device(given)
    return _activates(activation)


def _activates(activation: str | None) -> bool:
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation: expected 'silu', 'swish' or None, got {activation!r}")
    return activation is not None
