"""The loss of a causal language model."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from fla.models.base.configuration import FLAConfig
from fla.modules import FusedCrossEntropyLoss, FusedLinearCrossEntropyLoss
from fla.modules.l2warp import l2_warp

IGNORED = -100


def shift_labels(
    labels: torch.Tensor, attention_mask: torch.Tensor | None = None, cu_seqlens: torch.Tensor | None = None
) -> torch.Tensor:
    """Targets of each step: the label of the next one; none at padding and at the end of a sequence.

    Args:
        labels: ``[B, T]``, those to predict, -100 for none.
        attention_mask: ``[B, L]``, 0 for padding, of which the last T columns count.
        cu_seqlens: boundaries of packed sequences ``[N + 1]``; the mask is not looked at then.
    """
    steps = labels.shape[1]
    shifted = F.pad(labels[:, 1:], (0, 1), value=IGNORED)
    if cu_seqlens is not None:
        # A sequence of length 0 at the front would end at step -1: that is the last step, which predicts nothing.
        return shifted.index_fill(1, (cu_seqlens[1:].long() - 1) % steps, IGNORED)
    return shifted if attention_mask is None else shifted.masked_fill(attention_mask[:, -steps:] == 0, IGNORED)


def check_labels(labels: torch.Tensor, inputs: torch.Tensor | None) -> None:
    """Raise ValueError unless labels have the shape ``[B, T]`` of the tokens, before these change a cache."""
    if inputs is not None and labels.shape != inputs.shape[:2]:
        raise ValueError(f"labels: expected shape [B, T] = {list(inputs.shape[:2])}, got {list(labels.shape)}")


def causal_loss(
    config: FLAConfig,
    hidden_states: torch.Tensor,
    logits: torch.Tensor | None,
    lm_head: nn.Module,
    labels: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    cu_seqlens: torch.Tensor | None = None,
    num_items_in_batch: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """Mean cross entropy over the labels that count, in nats.

    Args:
        config: the config that chooses the implementation.
        hidden_states: ``[B, T, D]``, used where there are no logits.
        logits: ``[B, T, vocabulary]``, or None for the fused linear loss.
        lm_head: the output layer, of the fused linear loss.
        labels: ``[B, T]``, not shifted.
        attention_mask: ``[B, L]``, 0 for padding.
        cu_seqlens: boundaries of packed sequences.
        num_items_in_batch: divide the sum by this instead, as the Trainer wants when it accumulates gradients. The warp
            keeps its size beside the cross entropy: it is the mean over the tokens of this call, times the share that
            its labels are of ``num_items_in_batch``.
    """
    targets = shift_labels(labels.to(hidden_states.device), attention_mask, cu_seqlens).flatten()
    counted = (targets != IGNORED).sum()
    loss: torch.Tensor
    if logits is None:
        fused = FusedLinearCrossEntropyLoss(ignore_index=IGNORED, use_l2warp=config.use_l2warp)
        loss = fused(hidden_states.flatten(0, 1), targets, lm_head.weight, lm_head.bias)
    elif config.fuse_cross_entropy:
        loss = FusedCrossEntropyLoss(ignore_index=IGNORED)(logits.flatten(0, 1), targets)
    else:
        wide = logits.flatten(0, 1).to(torch.promote_types(logits.dtype, torch.float32))
        # PyTorch's own mean is NaN where no label counts.
        loss = F.cross_entropy(wide, targets, ignore_index=IGNORED, reduction="sum") / counted.clamp(min=1)
    if logits is not None and config.use_l2warp:
        loss = l2_warp(loss, logits)
    return loss if num_items_in_batch is None else loss * counted / num_items_in_batch
