"""What every norm shares: checks, defaults and the choice of the backend."""

from __future__ import annotations

import torch

from fla.modules._checks import check_shape_of_x, check_tensor
from fla.modules._norm.ops import run_norm_triton
from fla.modules._norm.reference import GATES, norm_ref, sum_dtype
from fla.utils.backends import choose_backend


def run_norm(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    kind: str,
    eps: float,
    *,
    groups: int = 1,
    gate: torch.Tensor | None = None,
    activation: str = "swish",
    prenorm: bool = False,
    residual_in_fp32: bool = False,
    out_dtype: torch.dtype | None = None,
    quantise: bool = False,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalise the last dimension of ``x + residual``; returns the result and ``x + residual``.

    Args:
        x: ``[..., D]``.
        weight: ``[D]`` or None.
        bias: ``[D]`` or None.
        residual: like x, or None.
        kind: ``"layer"``, ``"rms"`` or ``"l2"``.
        eps: added to the mean square (``"l2"``: to the sum of squares).
        groups: equal parts of the last dimension, each normalised by itself.
        gate: like x; the result is multiplied by its activation.
        activation: of the gate.
        prenorm: the caller uses ``x + residual``; what is returned for it is undefined otherwise.
        residual_in_fp32: hand on ``x + residual`` in float32, else in the dtype of the residual.
        out_dtype: of the result; that of x unless given.
        quantise: round each row to 8 bits of its largest magnitude; straight through for gradients. Of one group.
        backend: by device unless given.

    Raises:
        TypeError: an argument is not a floating tensor.
        ValueError: a shape, device or activation that does not fit, or a backend that cannot run here.
    """
    _check(x, weight, bias, residual, gate, activation, groups)
    total_dtype = sum_dtype(x, residual, residual_in_fp32)
    out_dtype = x.dtype if out_dtype is None else out_dtype
    if choose_norm_backend(x, backend, groups) == "triton":
        return run_norm_triton(
            x, gate, weight, bias, residual, kind, activation, eps, groups, prenorm, total_dtype, out_dtype, quantise
        )
    return norm_ref(x, gate, weight, bias, residual, kind, activation, eps, groups, total_dtype, out_dtype, quantise)


#: The widest row that the kernels hold in registers.
MAX_TRITON_DIM = 8192


def choose_norm_backend(x: torch.Tensor, backend: str | None, groups: int = 1) -> str:
    """The backend for rows like those of ``x``: by device, and PyTorch for rows too wide for the kernels."""
    chosen = choose_backend(x, backend)
    if chosen != "triton" or x.shape[-1] <= MAX_TRITON_DIM * groups:
        return chosen
    if backend == "triton":
        raise ValueError(
            f"backend='triton': expected at most {MAX_TRITON_DIM * groups} channels in x, got {list(x.shape)}"
        )
    return "torch"


def _check(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    gate: torch.Tensor | None,
    activation: str,
    groups: int,
) -> None:
    check_tensor("x", x)
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"x: expected shape [..., D] with D >= 1, got {list(x.shape)}")
    if groups < 1 or x.shape[-1] % groups:
        raise ValueError(f"num_groups: expected to divide the D={x.shape[-1]} channels of x, got {groups}")
    for name, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None:
            check_tensor(name, parameter, x.device)
            if parameter.shape != x.shape[-1:]:
                raise ValueError(f"{name}: expected shape [D] with D={x.shape[-1]}, got {list(parameter.shape)}")
    for name, tensor in (("residual", residual), ("g", gate)):
        if tensor is not None:
            check_tensor(name, tensor, x.device)
            check_shape_of_x(name, tensor, x)
    if activation not in GATES:
        raise ValueError(f"activation: expected one of {', '.join(GATES)}, got {activation!r}")
