"""Causality of chunked algorithms where operands are not finite: shared by every ``algorithm.py``.

Within a chunk, steps that come later meet a factor of zero, and zero times NaN or infinity is NaN. Whatever is written
reaches the final state, so one small reduction tells whether a call has to be looked at.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from fla.utils.varlen import boundaries

Forward = TypeVar("Forward", bound=Callable[..., Any])


def keeps_causality(written: Sequence[str], decays: Sequence[str] = ()) -> Callable[[Forward], Forward]:
    """Decorate a forward pass ``(*operands) -> (o [B, T, ...], final_state)``: later steps leave earlier outputs alone.

    Where an operand is not finite, the outputs before that step are computed again without it. On the CPU only,
    because reading the final state would wait for any other device.

    Args:
        written: the operands ``[B, T, ...]`` of what a step writes.
        decays: log decays ``[B, T, ...]``, where minus infinity is a reset.
    """

    def decorate(forward: Forward) -> Forward:
        names = list(inspect.signature(forward).parameters)
        places = {names.index(name): name in decays for name in (*written, *decays)}
        packed = names.index("cu_seqlens")

        @functools.wraps(forward)
        def call(*arguments: Any) -> Any:
            o, final_state = forward(*arguments)
            if final_state.device.type != "cpu" or math.isfinite(final_state.sum().item()):
                return o, final_state
            wrong = {
                at: x.isnan() | x.isposinf() if is_decay else ~x.isfinite()
                for at, is_decay in places.items()
                if (x := arguments[at]) is not None
            }
            step = functools.reduce(torch.logical_or, (where.flatten(2).any(-1) for where in wrong.values()))
            if not step.any():
                return o, final_state
            clean = [x.masked_fill(wrong[at], 0.0) if at in wrong else x for at, x in enumerate(arguments)]
            reached = _from_first(step, arguments[packed])
            return torch.where(reached[..., None, None], o, forward(*clean)[0]), final_state

        return call  # type: ignore[return-value]

    return decorate


def _from_first(step: torch.Tensor, cu_seqlens: torch.Tensor | None) -> torch.Tensor:
    """The steps ``[B, T]`` of each sequence from the first marked one on."""
    if cu_seqlens is None:
        return step.cumsum(1) > 0
    ends = boundaries(cu_seqlens, step.shape[1])
    return torch.cat([step[:, start:end].cumsum(1) > 0 for start, end in zip(ends, ends[1:])], 1)
