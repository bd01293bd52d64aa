"""The functional forms of layer norm and RMS norm."""

from __future__ import annotations

from typing import Literal, overload

import torch

from fla.modules._norm import run_norm


@overload
def layer_norm(
    x: torch.Tensor,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    eps: float = 1e-5,
    prenorm: Literal[False] = False,
    residual_in_fp32: bool = False,
    backend: str | None = None,
) -> torch.Tensor: ...
@overload
def layer_norm(
    x: torch.Tensor,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    eps: float = 1e-5,
    *,
    prenorm: Literal[True],
    residual_in_fp32: bool = False,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor]: ...
