"""How far a result may be from the truth: the one file that holds the project's tolerances.

Truth is a float64 reference. A backend may be as wrong as the reference itself is when it runs on
inputs of the backend's dtype with float32 accumulation, twice over, plus a rounding band: half a unit
in the last place for the half-precision dtypes (their operands are rounded once more on the way
into a matrix product) and a few units for float32 and float64 (sums are taken in another order).
Where a result is so small that its operands underflow in the dtype, the spacing of the subnormal numbers
adds to that: it matters for float16 alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: Rounding band in units of ``torch.finfo(dtype).eps``.
_BAND_IN_EPS = {"torch.bfloat16": 0.5, "torch.float16": 0.5, "torch.float32": 8.0, "torch.float64": 8.0}


def get_abs_err(ref: torch.Tensor, tri: torch.Tensor) -> float:
    """Largest absolute difference between ``ref`` and ``tri``, taken in float64."""
    if ref.numel() == 0:
        return 0.0
    return float((ref.detach().double() - tri.detach().double().to(ref.device)).abs().max())


def get_err_ratio(ref: torch.Tensor, tri: torch.Tensor) -> float:
    r"""Relative error :math:`\lVert tri - ref \rVert / \lVert ref \rVert`, taken in float64.

    A reference that is zero everywhere gives 0 for an exact match and infinity otherwise; NaN in
    either tensor gives NaN.
    """
    truth = ref.detach().double()
    error = float((tri.detach().double().to(truth.device) - truth).norm())
    scale = float(truth.norm())
    if math.isnan(error) or math.isnan(scale):
        return math.nan
    if scale == 0.0:
        return 0.0 if error == 0.0 else math.inf
    return error / scale


def rounding_band(dtype: torch.dtype) -> float:
    """The error that rounding alone may add in ``dtype``, relative to the norm of the result."""
    import torch

    return _BAND_IN_EPS[str(dtype)] * float(torch.finfo(dtype).eps)


def _underflow(truth: torch.Tensor, dtype: torch.dtype) -> float:
    """What underflow may add to the relative error: a few subnormal spacings an element."""
    import torch

    info = torch.finfo(dtype)
    norm = float(truth.double().norm())
    return 4 * float(info.smallest_normal * info.eps) * math.sqrt(truth.numel()) / norm if norm > 0.0 else 0.0


def error_budget(reference_error: float, dtype: torch.dtype) -> float:
    """The largest error that a result may have: ``2 * reference_error + rounding_band(dtype)``.

    Args:
        reference_error: :func:`get_err_ratio` of the reference run in ``dtype`` against float64.
        dtype: the dtype that the inputs were rounded to.
    """
    return 2.0 * reference_error + rounding_band(dtype)


def error_budget_for(truth: torch.Tensor, baseline: torch.Tensor, dtype: torch.dtype) -> float:
    """The :func:`error_budget` of a result, given the float64 truth and the reference run in ``dtype``."""
    return error_budget(get_err_ratio(truth, baseline), dtype) + _underflow(truth, dtype)


def check_error_budget(
    name: str, truth: torch.Tensor, baseline: torch.Tensor, result: torch.Tensor, dtype: torch.dtype
) -> tuple[float, float]:
    """Hold ``result`` against the error budget and return ``(error, budget)``.

    Args:
        name: what is compared, for the message.
        truth: the float64 reference.
        baseline: the reference run on inputs in ``dtype``.
        result: what the backend made of the same inputs.
        dtype: the dtype of the inputs.

    Raises:
        AssertionError: the shapes differ, or the error is NaN or over the budget.
    """
    if truth.shape != result.shape:
        raise AssertionError(f"{name}: shape {tuple(result.shape)}, expected {tuple(truth.shape)}")
    error = get_err_ratio(truth, result)
    budget = error_budget_for(truth, baseline, dtype)
    if not error <= budget:
        raise AssertionError(
            f"{name}: relative error {error:.3e} is over the budget {budget:.3e} for {dtype} "
            f"(largest absolute difference {get_abs_err(truth, result):.3e})"
        )
    return error, budget


def assert_close(prefix: str, ref: torch.Tensor, tri: torch.Tensor, ratio: float, err_atol: float = 1e-6) -> None:
    """Raise unless ``tri`` is within the relative error ``ratio`` of ``ref``.

    Args:
        prefix: what is compared, for the message.
        ref: the expected tensor.
        tri: the tensor under test.
        ratio: largest allowed :func:`get_err_ratio`.
        err_atol: absolute differences up to this pass whatever the ratio.

    Raises:
        AssertionError: the shapes differ, ``tri`` holds NaN where ``ref`` does not, or the error is too large.
    """
    if ref.shape != tri.shape:
        raise AssertionError(f"{prefix}: shape {tuple(tri.shape)}, expected {tuple(ref.shape)}")
    largest = get_abs_err(ref, tri)
    if largest <= err_atol:
        return
    error = get_err_ratio(ref, tri)
    if not error <= ratio:
        raise AssertionError(f"{prefix}: relative error {error:.3e} > {ratio:.3e} (largest difference {largest:.3e})")
