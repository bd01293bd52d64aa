"""The functional form of the linear cross entropy."""

from __future__ import annotations

import torch

from fla.modules._checks import needs_gradient
from fla.modules.fused_cross_entropy.options import check_targets, loss_options
from fla.modules.fused_linear_cross_entropy.ops import LinearCrossEntropyFunction, linear_cross_entropy_ref
from fla.utils.backends import choose_backend
from fla.utils.derivatives import anchor
from fla.utils.validation import bind_shapes, check_floating, check_same_device

REDUCTIONS = ("mean", "sum")


def fused_linear_cross_entropy_loss(
    x: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    logit_scale: float = 1.0,
    logit_softcapping: float | None = None,
    num_chunks: int = 8,
    reduction: str = "mean",
    use_l2warp: bool = False,
    l2_penalty_factor: float = 1e-4,
    accumulate_grad_in_fp32: bool = True,
    backend: str | None = None,
) -> torch.Tensor:
    r"""Cross entropy of the logits :math:`x\, weight^\top + bias`, which never exist all at once.

    Rows are taken in chunks; loss and gradients are computed in one walk, so memory holds the logits of one chunk and
    the gradients of x and weight. :func:`fla.modules.fused_cross_entropy.cross_entropy_loss` explains the loss.

    Args:
        x: ``[N, D]``; float32, bfloat16, float16, or float64 on the torch backend. Under autocast it and the weight
            are cast as for a linear layer.
        target: classes ``[N]``, int64 or int32.
        weight: ``[V, D]``; products are taken in the dtype of x.
        bias: ``[V]``.
        ignore_index: rows with this target count for nothing. Without any other row the loss is 0.
        label_smoothing: epsilon.
        logit_scale: factor on the logits.
        logit_softcapping: soft cap of the logits, or None.
        num_chunks: into how many chunks the rows are cut.
        reduction: ``"mean"`` over the rows that count, or ``"sum"``.
        use_l2warp: add ``l2_penalty_factor / N`` times the largest logit of each row to its gradient, as RWKV does to
            keep logits small; the value of the loss does not change. It is so with either reduction: a caller that
            divides the loss by a number of labels starts from the mean, times the labels of this call.
        l2_penalty_factor: see ``use_l2warp``.
        accumulate_grad_in_fp32: sum the gradient of the weight over chunks in float32.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        The loss in float32.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: a shape or device that does not fit, an option out of range, on the CPU a class out of range, or a
            backend that cannot run here.
    """
    bind_shapes({"x": (x, "N D"), "target": (target, "N"), "weight": (weight, "V D"), "bias": (bias, "V?")})
    check_floating({"x": x, "weight": weight, "bias": bias})
    check_same_device({"x": x, "target": target, "weight": weight, "bias": bias})
    if target.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"target: expected int64 or int32, got {target.dtype}")
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction: expected 'mean' or 'sum', got {reduction!r}")
    if num_chunks < 1:
        raise ValueError(f"num_chunks: expected at least 1, got {num_chunks}")
    options = loss_options(ignore_index, label_smoothing, logit_scale, 0.0, logit_softcapping)
    options = options._replace(classes=weight.shape[0])
    check_targets(target, options)
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    chosen = choose_backend(x, backend)
    if chosen == "reference" and not use_l2warp:
        return linear_cross_entropy_ref(x, target.long(), weight, bias, reduction, options)
    loss: torch.Tensor = LinearCrossEntropyFunction.apply(  # type: ignore[no-untyped-call]
        x,
        target.long(),
        weight,
        bias,
        anchor(x, weight, bias),
        reduction,
        num_chunks,
        l2_penalty_factor if use_l2warp else 0.0,
        accumulate_grad_in_fp32,
        *(needs_gradient(leaf) for leaf in (x, weight, bias)),
        chosen,
        *options,
    )
    return loss
