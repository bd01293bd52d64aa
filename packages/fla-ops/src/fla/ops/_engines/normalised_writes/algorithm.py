"""Normalised writes in plain PyTorch: trees of pairs of steps, so that rounding grows with the logarithm of T."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from fla.ops._shared.arguments import sum_dtype


def writes_fwd_torch(
    s: torch.Tensor,
    initial: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    dtype: torch.dtype,
    with_sums: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Writes and decays ``[B, T, ...]``, the last sum of each sequence ``[N, ...]``, and every one if asked for."""
    s = s.to(sum_dtype(s)).contiguous()
    first, start = _first_steps(s, cu_seqlens), _start(s, initial, cu_seqlens)
    z = _scan(None, torch.where(first, torch.logaddexp(s, start), s), first)
    before = torch.where(first, start, z.roll(1, 1))
    # The difference of z and the one before, without what two large numbers would lose of it.
    decay = torch.where(before.isneginf(), 0.0, F.logsigmoid(before - s))
    if cu_seqlens is None:
        last = z[:, -1].clone()
    else:
        ends = z[0, (cu_seqlens[1:] - 1).clamp(min=0)]
        last = torch.where(_is_empty(cu_seqlens, s), -torch.inf if initial is None else initial.to(s.dtype), ends)
    return (s - z).exp().to(dtype), decay, last, z if with_sums else z.new_empty(0)


def writes_bwd_torch(
    write: torch.Tensor,
    decay: torch.Tensor,
    initial: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    dwrite: torch.Tensor | None,
    ddecay: torch.Tensor | None,
    dlast: torch.Tensor | None,
    dz: torch.Tensor | None,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of s and of the initial sums (empty without those)."""
    first = _first_steps(decay, cu_seqlens)
    ends = first.roll(-1, 1)
    write = write.to(decay.dtype)
    dwrite, ddecay, dz = (torch.zeros_like(decay) if x is None else x.to(decay.dtype) for x in (dwrite, ddecay, dz))
    # A decay of nothing is 0, whatever z is.
    ddecay = ddecay.masked_fill(first & _start(decay, initial, cu_seqlens).isneginf(), 0.0)
    # What each step itself gives to the gradient of its z, and then what it gets of all later ones as well.
    own = dz - write * dwrite - ddecay + ddecay.roll(-1, 1).masked_fill(ends, 0.0)
    if dlast is not None:
        own += torch.where(ends, _spread(dlast, decay, cu_seqlens), 0.0)
    dsum = _scan(decay.roll(-1, 1).exp().flip(1), own.flip(1), ends.flip(1)).flip(1)
    ds = (write * (dwrite + dsum)).to(dtype)
    if initial is None:
        return ds, decay.new_empty(0)
    dstart = decay.exp() * dsum + ddecay
    if cu_seqlens is None:
        dinitial = dstart[:, 0]
    else:
        dinitial = dstart[0, cu_seqlens[:-1].clamp(max=decay.shape[1] - 1)]
    dinitial = dinitial.masked_fill(initial.isneginf(), 0.0)
    if cu_seqlens is not None:
        dinitial = torch.where(_is_empty(cu_seqlens, decay), 0.0 if dlast is None else dlast, dinitial)
    return ds, dinitial


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


def _spread(state: torch.Tensor, s: torch.Tensor, cu_seqlens: torch.Tensor | None) -> torch.Tensor:
    """The state of each step's sequence, to be broadcast over s."""
    return state[:, None] if cu_seqlens is None else state[_sequence_of(s, cu_seqlens)][None]


def _start(s: torch.Tensor, initial: torch.Tensor | None, cu_seqlens: torch.Tensor | None) -> torch.Tensor:
    """The initial sum of each step's sequence, to be broadcast over s."""
    return s.new_full((), -torch.inf) if initial is None else _spread(initial.to(s.dtype), s, cu_seqlens)


def _scan(a: torch.Tensor | None, b: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
    """``h_t = a_t h_{t-1} + b_t`` along dimension 1, or ``log(e^{h_{t-1}} + e^{b_t})`` without a, by halving the steps.

    Where a step is ``first``, ``h_t = b_t`` whatever was before: a product with zero would let NaN through.
    """
    steps = b.shape[1]
    if steps == 1:
        return b
    even, odd, later = slice(0, steps - 1, 2), slice(1, None, 2), slice(2, None, 2)
    h = b.clone()
    pairs = _follow(a, b, first, odd, b[:, even])
    factors = None if a is None else a[:, odd] * a[:, even]
    h[:, odd] = _scan(factors, pairs, first[:, odd] | first[:, even])
    h[:, later] = _follow(a, b, first, later, h[:, 1 : steps - 1 : 2])
    return h


def _follow(
    a: torch.Tensor | None, b: torch.Tensor, first: torch.Tensor, steps: slice, before: torch.Tensor
) -> torch.Tensor:
    """h of the ``steps`` from that of the steps before them."""
    b, first = b[:, steps], first[:, steps]
    return torch.where(first, b, torch.logaddexp(before, b) if a is None else a[:, steps] * before + b)
