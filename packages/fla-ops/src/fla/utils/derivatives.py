"""Functions that can be differentiated once: who asks for a second derivative is told, and nobody gets a wrong one.

Shared by the five wheels; not public: it may change in any release.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch

Backward = Callable[..., tuple[Any, ...]]


def first_order(name: str) -> Callable[[Backward], Backward]:
    """Decorate ``backward(ctx, saved, *gradients)`` of a ``torch.autograd.Function``; saved are its saved tensors.

    With ``create_graph=True`` the gradients have a graph that leads to all that they depend on; differentiating
    through it raises RuntimeError, taking the gradients alone does not. What the backward pass reads must therefore be
    among the saved tensors as an input or output of the function, or be stood for by :func:`anchor`.

    Args:
        name: what the error calls the function.
    """

    def decorate(backward: Backward) -> Backward:
        @wraps(backward)
        def run(ctx: Any, *gradients: torch.Tensor | None) -> tuple[Any, ...]:
            # Read once: checkpointing computes the tensors when they are read, and does so once.
            saved = ctx.saved_tensors
            # A compiled graph refuses second derivatives by itself.
            if torch.compiler.is_compiling() or not torch.is_grad_enabled():
                return backward(ctx, saved, *gradients)
            with torch.no_grad():
                results = backward(ctx, saved, *gradients)
            return _refuse_second(name, results, (*saved, *gradients))

        return run

    return decorate


def anchor(*tensors: torch.Tensor | None) -> torch.Tensor | None:
    """An empty tensor in the graph of ``tensors``, to be passed to a function that saves none of them, and saved."""
    leaves = [x for x in tensors if x is not None and x.requires_grad]
    if not leaves or not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return None
    return _Anchor.apply(*leaves)  # type: ignore[no-untyped-call,no-any-return]


def _refuse_second(name: str, results: tuple[Any, ...], causes: Sequence[torch.Tensor | None]) -> tuple[Any, ...]:
    """The results, in a graph that raises."""
    roots = [x for x in causes if x is not None and x.requires_grad]
    places = [i for i, result in enumerate(results) if result is not None]
    if not roots or not places:
        return results
    tied = _Refusal.apply(name, len(places), *(results[i] for i in places), *roots)  # type: ignore[no-untyped-call]
    whole = list(results)
    for i, result in zip(places, tied):
        whole[i] = result
    return tuple(whole)


class _Refusal(torch.autograd.Function):
    """The first tensors unchanged, as if they came of the others by something without a derivative."""

    @staticmethod
    def forward(ctx: Any, name: str, count: int, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ctx.name = name
        return tuple(x.detach() for x in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Any, ...]:
        raise RuntimeError(
            f"{ctx.name}: this backend has no second derivative; backend='reference', or FLA_BACKEND=reference for the "
            "process, has it"
        )


class _Anchor(torch.autograd.Function):
    """Nothing flows through it."""

    @staticmethod
    def forward(ctx: Any, *tensors: torch.Tensor) -> torch.Tensor:
        ctx.count = len(tensors)
        ctx.set_materialize_grads(False)
        return tensors[0].new_empty(0)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor | None) -> Any:
        return (None,) * ctx.count
