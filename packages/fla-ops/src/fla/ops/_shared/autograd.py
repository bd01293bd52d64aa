"""The ``autograd.Function`` of ops over a state: one for all families."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fla.utils.derivatives import first_order

StateFunction = Callable[..., tuple[torch.Tensor, torch.Tensor]]


def state_function(fwd: Callable[..., Any], bwd: Callable[..., Any], tells: bool = False) -> StateFunction:
    """A function that can be differentiated once, from the registered ops of its two passes.

    Takes what :func:`autograd_function` takes, and calls ``fwd`` alone where no gradient is asked for.
    """
    apply: StateFunction = autograd_function(fwd, bwd, tells).apply

    def call(
        options: tuple[Any, ...],
        cu_seqlens: torch.Tensor | None,
        initial_state: torch.Tensor | None,
        *operands: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (initial_state, *operands)):
            return apply(options, cu_seqlens, initial_state, *operands)
        # For decoding: autograd's function costs as much as a small step.
        o, final_state, *_ = fwd(*operands, initial_state, cu_seqlens, *options, *((False,) if tells else ()))
        return o, final_state

    return call


def autograd_function(
    fwd: Callable[..., Any], bwd: Callable[..., Any], tells: bool = False
) -> type[torch.autograd.Function]:
    """The ``torch.autograd.Function`` over the registered ops of two passes.

    Args:
        fwd: ``(*operands, initial_state, cu_seqlens, *options) -> (o, final_state, *saved)``; operands may be None.
        bwd: ``(*operands, initial_state, *saved, do, dfinal_state, cu_seqlens, *options)`` ``->
            (*doperands, dinitial_state)``; what it returns for an operand that is None is not looked at.
        tells: ``fwd`` takes one more argument after all others: whether a backward pass may follow.

    Returns:
        Its ``apply`` is ``(options, cu_seqlens, initial_state, *operands) -> (o, final_state)``. It keeps the operands
        and what ``fwd`` hands over.
    """

    name = fwd.__name__.split(".")[0].removesuffix("_fwd")

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: Any,
            options: tuple[Any, ...],
            cu_seqlens: torch.Tensor | None,
            initial_state: torch.Tensor | None,
            *operands: torch.Tensor | None,
        ) -> tuple[torch.Tensor, torch.Tensor]:
            o, final_state, *saved = fwd(*operands, initial_state, cu_seqlens, *options, *((True,) if tells else ()))
            ctx.save_for_backward(cu_seqlens, initial_state, *operands, *saved)
            ctx.options, ctx.count = options, len(operands)
            ctx.like_o = (o.shape, o.dtype, o.device)
            ctx.set_materialize_grads(False)
            return o, final_state

        @staticmethod
        @first_order(name)
        def backward(
            ctx: Any, kept: tuple[Any, ...], do: torch.Tensor | None, dfinal_state: torch.Tensor | None
        ) -> tuple[Any, ...]:
            cu_seqlens, initial_state, *rest = kept
            operands, saved = rest[: ctx.count], rest[ctx.count :]
            if do is None:
                shape, dtype, device = ctx.like_o
                do = torch.zeros(shape, dtype=dtype, device=device)
            *gradients, dinitial_state = bwd(
                *operands, initial_state, *saved, do, dfinal_state, cu_seqlens, *ctx.options
            )
            dinitial_state = None if initial_state is None else dinitial_state.to(initial_state.dtype)
            doperands = [None if x is None else dx for x, dx in zip(operands, gradients)]
            return None, None, dinitial_state, *doperands

    return Function
