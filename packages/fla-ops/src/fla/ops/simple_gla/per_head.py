"""Decays that follow from the place of a head alone, made once and kept: for the families that have such."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch

from fla.ops._arguments import sum_dtype

#: From the numbers of the heads ``[HV]``, 0 first, and further numbers: the log decay of each head ``[HV]``.
Rule = Callable[..., torch.Tensor]


def decay_per_head(v: torch.Tensor, rule: Rule, *numbers: float) -> torch.Tensor:
    """The log decay of each head ``[HV]`` of v ``[B, T, HV, V]``, in the dtype that sums are taken in.

    Nothing is computed, copied or waited for where the same was asked for before.
    """
    # Inside a graph it is cheap; and what is made there, or in fake mode, must not be kept.
    make = _make if torch.compiler.is_compiling() or type(v) is not torch.Tensor else _kept
    return make(rule, numbers, v.shape[2], sum_dtype(v), v.device)


def _make(rule: Rule, numbers: tuple[float, ...], heads: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return rule(torch.arange(heads, dtype=dtype, device=device), *numbers)


@cache
def _kept(rule: Rule, numbers: tuple[float, ...], heads: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    # A tensor made in inference mode could not be used in training later.
    with torch.inference_mode(False):
        return _make(rule, numbers, heads, dtype, device)
