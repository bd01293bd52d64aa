"""What shapes a row's loss; both backends and the linear form read it."""

from __future__ import annotations

from typing import NamedTuple

import torch


class LossOptions(NamedTuple):
    """How a row of logits becomes a loss; see :func:`fla.modules.fused_cross_entropy.cross_entropy_loss`."""

    ignore_index: int = -100
    label_smoothing: float = 0.0
    logit_scale: float = 1.0
    lse_square_scale: float = 0.0
    softcapping: float = 0.0
    """0 for none."""
    first: int = 0
    """The class of the first logit, where the classes are shared out among ranks."""
    classes: int = 0
    """The number of classes of all ranks together."""


def loss_options(
    ignore_index: int,
    label_smoothing: float,
    logit_scale: float,
    lse_square_scale: float,
    logit_softcapping: float | None,
) -> LossOptions:
    """Checked options.

    Raises:
        ValueError: an option out of its range.
    """
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(f"label_smoothing: expected 0 <= label_smoothing < 1, got {label_smoothing}")
    if logit_softcapping is not None and logit_softcapping <= 0:
        raise ValueError(f"logit_softcapping: expected a positive number or None, got {logit_softcapping}")
    return LossOptions(
        ignore_index, float(label_smoothing), float(logit_scale), float(lse_square_scale), logit_softcapping or 0.0
    )


def check_targets(target: torch.Tensor, options: LossOptions) -> None:
    """Raise ValueError for a class that does not exist; on the CPU alone, where looking costs no waiting."""
    if target.device.type != "cpu" or torch.compiler.is_compiling():
        return
    wrong = (target != options.ignore_index) & ((target < 0) | (target >= options.classes))
    if wrong.any():
        raise ValueError(
            f"target: expected classes 0..{options.classes - 1} or ignore_index={options.ignore_index}, "
            f"got {target[wrong][0].item()}"
        )
