"""Decays that follow from the place of a head alone, made once and kept: for the families that have such."""

from __future__ import annotations

from collections.abc import Callable

import torch

from fla.ops._shared.arguments import sum_dtype
from fla.ops._shared.kept import kept

#: From the numbers of the heads ``[HV]``, 0 first, and further numbers: the log decay of each head ``[HV]``.
Rule = Callable[..., torch.Tensor]


def decay_per_head(v: torch.Tensor, rule: Rule, *numbers: float) -> torch.Tensor:
    """The log decay of each head ``[HV]`` of v ``[B, T, HV, V]``, in the dtype that sums are taken in.

    Nothing is computed, copied or waited for where the same was asked for before.
    """
    return _decays(v, rule, numbers, v.shape[2], sum_dtype(v))


@kept
def _decays(
    device: torch.device, rule: Rule, numbers: tuple[float, ...], heads: int, dtype: torch.dtype
) -> torch.Tensor:
    return rule(torch.arange(heads, dtype=dtype, device=device), *numbers)
