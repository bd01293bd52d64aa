"""The running log-sum-exp over time, and what it makes of a memory whose writes always sum to one."""

from __future__ import annotations

import torch

from fla.ops._engines.normalised_writes.ops import Results, run_writes
from fla.ops._shared.arguments import sum_dtype
from fla.ops.utils.reference import naive_normalised_writes
from fla.utils.backends import choose_backend
from fla.utils.validation import (
    FLOATING_DTYPES,
    check_cu_seqlens,
    check_floating,
    check_same_device,
    count_sequences,
)


def running_logsumexp(
    s: torch.Tensor,
    initial: torch.Tensor | None = None,
    cu_seqlens: torch.Tensor | None = None,
    backend: str | None = None,
) -> torch.Tensor:
    r"""The logarithm of a running sum of exponentials, elementwise over time.

    .. math:: z_t = \log\Big(e^{initial} + \sum_{j \le t} e^{s_j}\Big)

    Computed in float32 (float64 for float64): in PyTorch by a tree of pairs, so that rounding grows with the logarithm
    of T; by the kernels in sums relative to the largest exponent, whose rounding does not grow with z. Safe for values
    of any size. Differentiable once in s and initial.

    Args:
        s: ``[B, T, ...]``, finite; float32, bfloat16, float16, or float64 on the torch backend.
        initial: the value before the first step ``[N, ...]``; N is B, or the number of packed sequences. Minus
            infinity unless given, and wherever it is that.
        cu_seqlens: boundaries of packed sequences ``[N + 1]``, int32 or int64, from 0 to T; B must be 1.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        z ``[B, T, ...]`` in float32 or float64.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: a shape or device that does not fit, or a backend that cannot run here.

    Example:
        >>> running_logsumexp(torch.zeros(1, 4, 1)).exp().flatten()
        tensor([1., 2., 3., 4.])
    """
    return _run(s, initial, cu_seqlens, None, True, backend)[3]


def normalised_writes(
    s: torch.Tensor,
    initial: torch.Tensor | None = None,
    cu_seqlens: torch.Tensor | None = None,
    dtype: torch.dtype | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    r"""Writes that grow like :math:`e^{s_t}`, as weights and log decays of a memory that stays bounded.

    .. math::
        write_t = e^{s_t - z_t}, \qquad decay_t = z_{t-1} - z_t \le 0, \qquad
        S_t = e^{decay_t} S_{t-1} + write_t v_t^\top = \sum_{j \le t} e^{s_j - z_t} v_j^\top

    with z the :func:`running_logsumexp` of s, whose precision and errors these are. Where nothing was written before
    there is nothing to decay, and the decay is 0.

    Args:
        s: ``[B, T, ...]``, finite; float32, bfloat16, float16, or float64 on the torch backend.
        initial: z before the first step ``[N, ...]``; N is B, or the number of packed sequences.
        cu_seqlens: boundaries of packed sequences ``[N + 1]``, int32 or int64, from 0 to T; B must be 1.
        dtype: of the writes; that of the other results unless given. The gradient of s is made of the writes as they
            are returned.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        ``(write, decay, last)``: the first two ``[B, T, ...]``; z after the last step of each sequence
        ``[N, ...]``, which is ``initial`` where a sequence is empty. In float32 or float64.

    Example:
        >>> write, decay, last = normalised_writes(torch.randn(1, 64, 2, 8))
        >>> write.shape, last.shape
        (torch.Size([1, 64, 2, 8]), torch.Size([1, 2, 8]))
    """
    return _run(s, initial, cu_seqlens, dtype, False, backend)[:3]


def _run(
    s: torch.Tensor,
    initial: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    dtype: torch.dtype | None,
    with_sums: bool,
    backend: str | None,
) -> Results:
    if not isinstance(s, torch.Tensor):
        raise TypeError(f"s: expected a tensor [B, T, ...], got {type(s).__name__}")
    if s.ndim < 2 or 0 in s.shape:
        raise ValueError(f"s: expected shape [B, T, ...] with nothing of size 0, got {list(s.shape)}")
    check_cu_seqlens(cu_seqlens, s.shape[0])
    check_floating({"s": s, "initial": initial})
    check_same_device({"s": s, "initial": initial, "cu_seqlens": cu_seqlens})
    if initial is not None:
        expected = [count_sequences(cu_seqlens, s.shape[0]), *s.shape[2:]]
        if list(initial.shape) != expected:
            raise ValueError(f"initial: expected shape [N, ...] = {expected}, got {list(initial.shape)}")
    if dtype is not None and dtype not in FLOATING_DTYPES:
        raise TypeError(f"dtype: expected a floating dtype, got {dtype}")
    chosen = choose_backend(s, backend)
    if chosen == "reference":
        return naive_normalised_writes(s, initial, cu_seqlens, dtype)
    return run_writes(s, initial, cu_seqlens, sum_dtype(s) if dtype is None else dtype, with_sums, chosen)
