"""How far a result may be from the truth: the one file that holds the project's tolerances.

Truth is a float64 reference. A backend may be as wrong as the reference itself is when it runs on
inputs of the backend's dtype with float32 accumulation, twice over, plus a rounding band: half a unit
in the last place for the half-precision dtypes (their operands are rounded once more on the way
into a matrix product) and a few units for float32 and float64 (sums are taken in another order).
Where a result is so small that its operands underflow in the dtype, the spacing of the subnormal numbers
adds to that: it matters for float16 alone.

A float64 result has a truth that is rounded as much as the result is, and no more exact one to measure that against.
What rounding leaves in it is told by float32: see :func:`float64_rounding`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: Rounding band in units of ``torch.finfo(dtype).eps``.
_BAND_IN_EPS = {"torch.bfloat16": 0.5, "torch.float16": 0.5, "torch.float32": 8.0, "torch.float64": 8.0}
#: Above this a relative error in float32 (8,000 units) is more than the sum of its roundings.
_FIRST_ORDER = 2.0**-10

#: The largest share of its limit that an error may reach on the machine of whoever writes a test or a kernel. Another
#: processor adds in another order: its errors are other draws from the same distribution.
MARGIN = 0.8

#: Called with what was compared and the share of its limit that the error reached, passed or not.
observers: list[Callable[[str, float], None]] = []


def share_of_limit(error: float, limit: float) -> float:
    """``error / limit``: 0 where there is neither, infinity where ``error`` is NaN or nothing is allowed."""
    if math.isnan(error):
        return math.inf
    return error / limit if limit > 0.0 else (math.inf if error else 0.0)


def held(name: str, share: float) -> bool:
    """Whether the share of its limit that an error reached is at most 1; :data:`observers` are told first."""
    for observe in observers:
        observe(name, share)
    return share <= 1.0


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


def agreement(dtype: torch.dtype, roundings: int) -> float:
    """How far two computations of one value in ``dtype`` may be apart, relative to its norm.

    For comparisons of one form with another where neither is the truth: packed with separate, pieces with the whole,
    loaded with saved. Each rounding is off by at most half a unit in either of the two, so a result behind that many
    dependent ones differs by at most as many units; they differ in sign, so that the square root of it is usual and
    the rest is room for sums that cancel.

    Args:
        dtype: both compute in.
        roundings: on the longest path, a sum of n terms counting as n.
    """
    import torch

    return roundings * float(torch.finfo(dtype).eps)


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


def float64_rounding(float32_error: float) -> float:
    """The relative error of a computation in float64, from that of the same computation in float32.

    To first order an error is the unit roundoff times a factor that the operations and the inputs determine and the
    precision does not. So ``eps(float64) / eps(float32)`` carries one over to the other, as long as the inputs of the
    float32 run are held exactly in the float64 run that it is compared with.

    Args:
        float32_error: :func:`get_err_ratio` of the float32 run. One above ``_FIRST_ORDER`` is no rounding error (a
            range that ended, a sum that cancelled altogether) and counts as 0, as NaN does.
    """
    import torch

    if not float32_error <= _FIRST_ORDER:
        return 0.0
    return float32_error * float(torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps)


def error_budget_for(
    truth: torch.Tensor, baseline: torch.Tensor, dtype: torch.dtype, truth_error: float = 0.0
) -> float:
    """The :func:`error_budget` of a result, measured from a truth that is itself off by ``truth_error``.

    Args:
        truth: the float64 reference.
        baseline: the reference run on inputs in ``dtype``. Where that is float64 it equals the truth, and
            ``truth_error`` is its error, too.
        dtype: the dtype of the inputs.
        truth_error: :func:`float64_rounding` of the reference where ``dtype`` is float64; elsewhere nothing worth
            counting.
    """
    reference_error = max(get_err_ratio(truth, baseline), truth_error)
    return truth_error + error_budget(reference_error, dtype) + _underflow(truth, dtype)


def check_error_budget(
    name: str,
    truth: torch.Tensor,
    baseline: torch.Tensor,
    result: torch.Tensor,
    dtype: torch.dtype,
    truth_error: float = 0.0,
) -> tuple[float, float]:
    """Hold ``result`` against the error budget and return ``(error, budget)``.

    Args:
        name: what is compared, for the message.
        truth: the float64 reference.
        baseline: the reference run on inputs in ``dtype``.
        result: what the backend made of the same inputs.
        dtype: the dtype of the inputs.
        truth_error: what the truth itself is off by: see :func:`error_budget_for`.

    Raises:
        AssertionError: the shapes differ, or the error is NaN or over the budget.
    """
    if truth.shape != result.shape:
        raise AssertionError(f"{name}: shape {tuple(result.shape)}, expected {tuple(truth.shape)}")
    error = get_err_ratio(truth, result)
    budget = error_budget_for(truth, baseline, dtype, truth_error)
    if not held(name, share_of_limit(error, budget)):
        raise AssertionError(
            f"{name}: relative error {error:.3e} is over the budget {budget:.3e} for {dtype} "
            f"(largest absolute difference {get_abs_err(truth, result):.3e})"
        )
    return error, budget


def assert_close(
    prefix: str, ref: torch.Tensor, tri: torch.Tensor, ratio: float, err_atol: float | None = None
) -> None:
    """Raise unless ``tri`` is within the relative error ``ratio`` of ``ref``.

    Args:
        prefix: what is compared, for the message.
        ref: the expected tensor.
        tri: the tensor under test.
        ratio: largest allowed :func:`get_err_ratio`.
        err_atol: absolute differences up to this pass whatever the ratio; by default the rounding band of values
            near 1, and 1e-6 at most.

    Raises:
        AssertionError: the shapes differ, ``tri`` holds NaN where ``ref`` does not, or the error is too large.
    """
    if ref.shape != tri.shape:
        raise AssertionError(f"{prefix}: shape {tuple(tri.shape)}, expected {tuple(ref.shape)}")
    if err_atol is None:
        err_atol = min(1e-6, max(_band_near_one(ref), _band_near_one(tri)))
    largest, error = get_abs_err(ref, tri), get_err_ratio(ref, tri)
    if not held(prefix, min(share_of_limit(error, ratio), share_of_limit(largest, err_atol))):
        raise AssertionError(f"{prefix}: relative error {error:.3e} > {ratio:.3e} (largest difference {largest:.3e})")


def _band_near_one(x: torch.Tensor) -> float:
    return rounding_band(x.dtype) if x.is_floating_point() else 0.0
