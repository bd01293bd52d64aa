"""Launchers of the cross entropy kernels."""

from __future__ import annotations

from math import e, log2
from typing import Any, NamedTuple

import torch
import triton

from fla.modules.fused_cross_entropy import kernels
from fla.modules.fused_cross_entropy.options import LossOptions
from fla.utils.plans import launch
from fla.utils.tiles import TileKey, TileTable, power_of_two, tile_key

_LOG2_E = log2(e)
_ROWS = 2048


class LossTile(NamedTuple):
    """Classes that stand side by side in a block; four such lines make one."""

    lanes: int
    warps: int


def _tile(key: TileKey) -> LossTile:
    lanes = min(power_of_two(key.key_dim, 64) // 4, 1024)
    return LossTile(lanes, max(1, lanes // 256))


LOSS_TILES: TileTable[LossTile] = TileTable(_tile)


def row_statistics(
    logits: torch.Tensor, target: torch.Tensor, options: LossOptions, gradient: bool = False
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """See :func:`fla.modules.fused_cross_entropy.reference.row_statistics_ref`.

    With ``gradient``, which needs contiguous logits and knows no z-loss, each row's loss leaves its gradient in them.
    """
    logits = logits.contiguous()
    rows, classes = logits.shape
    lse, at_target, total = (logits.new_empty(rows, dtype=torch.float32) for _ in range(3))
    if rows:
        launch(
            kernels.cross_entropy_statistics_kernel,
            (rows,),
            logits,
            target.contiguous(),
            lse,
            at_target,
            total,
            **_shape_arguments(logits, options),
            TOTAL=options.label_smoothing > 0,
            GRADIENT=gradient,
        )
    return lse, at_target, total


def logit_gradient(
    logits: torch.Tensor,
    target: torch.Tensor,
    lse: torch.Tensor,
    dloss: torch.Tensor,
    factor: torch.Tensor,
    options: LossOptions,
    inplace: bool,
) -> torch.Tensor:
    """See :func:`fla.modules.fused_cross_entropy.reference.logit_gradient_ref`; in place, logits are overwritten."""
    source = logits.contiguous()
    rows, classes = logits.shape
    dlogits = source if inplace else torch.empty_like(source)
    if rows:
        arguments = _shape_arguments(source, options)
        launch(
            kernels.cross_entropy_bwd_kernel,
            (rows * triton.cdiv(classes, arguments["BV"]),),
            source,
            target.contiguous(),
            lse.contiguous(),
            dloss,
            factor,
            dlogits,
            dloss.stride(0) if dloss.dim() else 0,
            lse_square_scale=options.lse_square_scale,
            **arguments,
        )
    return logits.copy_(dlogits) if inplace and source is not logits else dlogits


def _shape_arguments(logits: torch.Tensor, options: LossOptions) -> dict[str, Any]:
    """What both kernels over logits take alike."""
    cap, scale = options.softcapping, options.logit_scale
    tile = LOSS_TILES.choose(tile_key(logits, 0))
    return {
        "inner": scale / cap if cap else scale * _LOG2_E,
        "outer": cap * _LOG2_E,
        "first": options.first,
        "ignore_index": options.ignore_index,
        "scale": scale,
        "peak": 1.0 - options.label_smoothing,
        "smoothed": options.label_smoothing / options.classes,
        "V": logits.shape[1],
        "BV": 4 * tile.lanes,
        "BL": tile.lanes,
        "CAPPED": cap > 0,
        "num_warps": tile.warps,
    }


def reduce_rows(
    target: torch.Tensor,
    lse: torch.Tensor,
    at_target: torch.Tensor,
    total: torch.Tensor,
    reduction: str,
    options: LossOptions,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """See :func:`fla.modules.fused_cross_entropy.reference.reduce_rows_ref`."""
    loss, z_loss = (lse.new_empty(lse.shape if reduction == "none" else ()) for _ in range(2))
    factor = lse.new_empty(())
    launch(
        kernels.cross_entropy_reduce_kernel,
        (1,),
        target.contiguous(),
        lse.contiguous(),
        at_target.contiguous(),
        total.contiguous(),
        loss,
        z_loss,
        factor,
        lse.shape[0],
        options.ignore_index,
        options.label_smoothing,
        options.label_smoothing / options.classes,
        options.lse_square_scale,
        BR=_ROWS,
        TOTAL=options.label_smoothing > 0,
        SUM=reduction != "none",
        MEAN=reduction == "mean",
        num_warps=8,
    )
    return loss, z_loss, factor
