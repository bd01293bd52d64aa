"""The running log-sum-exp over time, and what it makes of a memory whose writes always sum to one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from fla.ops._arguments import sum_dtype
from fla.utils._registration import register_op
from fla.utils._validation import check_cu_seqlens, check_floating, check_same_device, count_sequences

Combine = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def running_logsumexp(
    s: torch.Tensor, initial: torch.Tensor | None = None, cu_seqlens: torch.Tensor | None = None
) -> torch.Tensor:
    r"""The logarithm of a running sum of exponentials, elementwise over time.

    .. math:: z_t = \log\Big(e^{initial} + \sum_{j \le t} e^{s_j}\Big)

    Computed in float32 (float64 for float64) by a tree of pairs, so that rounding grows with the logarithm of T;
    safe for values of any size. Differentiable once in s and initial.

    Args:
        s: ``[B, T, ...]``, finite; any floating dtype.
        initial: the value before the first step ``[N, ...]``; N is B, or the number of packed sequences. Minus
            infinity unless given, and wherever it is that.
        cu_seqlens: boundaries of packed sequences ``[N + 1]``, int32 or int64, from 0 to T; B must be 1.

    Returns:
        z ``[B, T, ...]`` in float32 or float64.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: a shape or device that does not fit.
    """
    s, initial = _check(s, initial, cu_seqlens)
    return _RunningLogSumExp.apply(s, initial, cu_seqlens)  # type: ignore[no-untyped-call,no-any-return]


def normalised_writes(
    s: torch.Tensor, initial: torch.Tensor | None = None, cu_seqlens: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    r"""Writes that grow like :math:`e^{s_t}`, as weights and log decays of a memory that stays bounded.

    .. math::
        write_t = e^{s_t - z_t}, \qquad decay_t = z_{t-1} - z_t \le 0, \qquad
        S_t = e^{decay_t} S_{t-1} + write_t v_t^\top = \sum_{j \le t} e^{s_j - z_t} v_j^\top

    with z the :func:`running_logsumexp` of s. Where nothing was written before there is nothing to decay, and the
    decay is 0. Arguments, precision and errors are those of :func:`running_logsumexp`.

    Returns:
        ``(write, decay, last)``: the first two ``[B, T, ...]``; z after the last step of each sequence
        ``[N, ...]``, which is ``initial`` where a sequence is empty.
    """
    s, initial = _check(s, initial, cu_seqlens)
    z = running_logsumexp(s, initial, cu_seqlens)
    start = -torch.inf if initial is None else _spread(initial, s, cu_seqlens)
    before = torch.where(_first_steps(s, cu_seqlens), start, z.roll(1, 1))
    decay = torch.where(torch.isneginf(before), 0.0, before - z)
    if cu_seqlens is None:
        last = z[:, -1]
    else:
        last = z[0, (cu_seqlens[1:] - 1).clamp(min=0)]
        last = torch.where(_is_empty(cu_seqlens, s), -torch.inf if initial is None else initial, last)
    return (s - z).exp(), decay, last


def _check(
    s: torch.Tensor, initial: torch.Tensor | None, cu_seqlens: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Validate, and return s and initial in the dtype of the sums."""
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
        initial = initial.to(sum_dtype(s))
    return s.to(sum_dtype(s)), initial


def _column(x: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    """x ``[L]`` as ``[L, 1, ...]``, to go with the trailing dimensions of s."""
    return x.view(-1, *[1] * (s.ndim - 2))


def _sequence_of(s: torch.Tensor, cu_seqlens: torch.Tensor) -> torch.Tensor:
    """The sequence of each step."""
    return torch.searchsorted(cu_seqlens[1:].long(), torch.arange(s.shape[1], device=s.device), right=True)


def _first_steps(s: torch.Tensor, cu_seqlens: torch.Tensor | None) -> torch.Tensor:
    """Where a sequence starts ``[1, T, 1, ...]``."""
    steps = torch.arange(s.shape[1], device=s.device)
    first = steps == (0 if cu_seqlens is None else cu_seqlens[_sequence_of(s, cu_seqlens)])
    return _column(first, s)[None]


def _is_empty(cu_seqlens: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    """Which sequences have no steps ``[N, 1, ...]``."""
    return _column(cu_seqlens.diff() == 0, s)


def _spread(initial: torch.Tensor, s: torch.Tensor, cu_seqlens: torch.Tensor | None) -> torch.Tensor:
    """The initial value of each step's sequence, to be broadcast over s."""
    return initial[:, None] if cu_seqlens is None else initial[_sequence_of(s, cu_seqlens)][None]


def _fwd(s: torch.Tensor, initial: torch.Tensor | None, cu_seqlens: torch.Tensor | None) -> torch.Tensor:
    first = _first_steps(s, cu_seqlens)
    carried = torch.zeros_like(first, dtype=s.dtype).masked_fill(first, -torch.inf)
    # The scan gives back its input where there is nothing to scan, and an input must not be the output.
    started = s.clone()
    if initial is not None:
        started = torch.where(first, torch.logaddexp(s, _spread(initial, s, cu_seqlens)), s)
    return _scan(carried, started, torch.add, torch.logaddexp)


def _fwd_fake(s: torch.Tensor, initial: torch.Tensor | None, cu_seqlens: torch.Tensor | None) -> torch.Tensor:
    return torch.empty_like(s)


def _bwd(
    s: torch.Tensor,
    initial: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    z: torch.Tensor,
    dz: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    # What step t gets of the gradient of step t + 1: nothing of another sequence's.
    ends = _first_steps(s, cu_seqlens).roll(-1, 1)
    passed = (z - z.roll(-1, 1)).masked_fill(ends, -torch.inf).exp()
    dlater = _scan(passed.flip(1), dz.flip(1), torch.mul, torch.add).flip(1)
    ds = (s - z).exp() * dlater
    if initial is None:
        return ds, s.new_empty(0)
    if cu_seqlens is None:
        return ds, (initial - z[:, 0]).exp() * dlater[:, 0]
    starts, empty = cu_seqlens[:-1].clamp(max=s.shape[1] - 1), _is_empty(cu_seqlens, s)
    share = (initial - z[0, starts]).masked_fill(empty, -torch.inf).exp()
    return ds, share * dlater[0, starts]


def _bwd_fake(
    s: torch.Tensor,
    initial: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    z: torch.Tensor,
    dz: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(s), s.new_empty(0) if initial is None else torch.empty_like(initial)


logsumexp_fwd = register_op(
    "running_logsumexp_fwd", "(Tensor s, Tensor? initial, Tensor? cu_seqlens) -> Tensor", _fwd, _fwd_fake
)
logsumexp_bwd = register_op(
    "running_logsumexp_bwd",
    "(Tensor s, Tensor? initial, Tensor? cu_seqlens, Tensor z, Tensor dz) -> (Tensor, Tensor)",
    _bwd,
    _bwd_fake,
)


class _RunningLogSumExp(torch.autograd.Function):
    """Both directions are linear recurrences: over logarithms forward, over gradients backward."""

    @staticmethod
    def forward(
        ctx: Any, s: torch.Tensor, initial: torch.Tensor | None, cu_seqlens: torch.Tensor | None
    ) -> torch.Tensor:
        z = logsumexp_fwd(s, initial, cu_seqlens)
        ctx.save_for_backward(s, initial, cu_seqlens, z)
        return z  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dz: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        s, initial, cu_seqlens, z = ctx.saved_tensors
        ds, dinitial = logsumexp_bwd(s, initial, cu_seqlens, z, dz)
        return ds, None if initial is None else dinitial, None


def _scan(a: torch.Tensor, b: torch.Tensor, times: Combine, plus: Combine) -> torch.Tensor:
    """``h_t = plus(times(a_t, h_{t-1}), b_t)`` along dimension 1 with ``h_0 = b_0``, by halving the steps."""
    steps = b.shape[1]
    if steps == 1:
        return b
    even, odd, later = slice(0, steps - 1, 2), slice(1, None, 2), slice(2, None, 2)
    h = b.clone()
    pairs = plus(times(a[:, odd], b[:, even]), b[:, odd])
    h[:, odd] = _scan(times(a[:, odd], a[:, even]), pairs, times, plus)
    h[:, later] = plus(times(a[:, later], h[:, 1 : steps - 1 : 2]), b[:, later])
    return h
