"""What each way of registering an op costs on the host, in microseconds a call, with a trivial body.

python benchmarks/registration.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

Op = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
LIBRARY = torch.library.Library("fla_registration", "FRAGMENT")
WITHOUT_GRADIENT = ("plain function", "Library define/impl alone")
SCHEMA = "(Tensor q, Tensor k, Tensor v, Tensor g, Tensor? state, float scale, str backend) -> (Tensor, Tensor)"


def body(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    state: torch.Tensor | None,
    scale: float,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(v), torch.empty_like(q)


def gradient(ctx: Any, do: torch.Tensor, dstate: torch.Tensor | None) -> tuple[Any, ...]:
    return tuple(torch.empty_like(x) for x in ctx.saved_tensors) + (None, None, None)


def save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:4])


def function_calling(call: Callable[..., tuple[torch.Tensor, torch.Tensor]]) -> Op:
    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
            ctx.save_for_backward(*inputs[:4])
            return call(*inputs)

        backward = staticmethod(gradient)

    return lambda q, k, v, g: Function.apply(q, k, v, g, None, 1.0, "torch")[0]


def function_with_setup_context() -> Op:
    class Function(torch.autograd.Function):
        forward = staticmethod(body)
        setup_context = staticmethod(save)
        backward = staticmethod(gradient)

    return lambda q, k, v, g: Function.apply(q, k, v, g, None, 1.0, "torch")[0]


def ways() -> dict[str, Op]:
    for name in ("alone", "autograd"):
        LIBRARY.define(f"{name}{SCHEMA}")
        LIBRARY.impl(name, body, "CompositeExplicitAutograd")
        torch.library.register_fake(f"fla_registration::{name}", body, lib=LIBRARY)
    torch.library.register_autograd("fla_registration::autograd", gradient, setup_context=save, lib=LIBRARY)
    custom = torch.library.custom_op("fla_registration::custom", body, mutates_args=(), schema=SCHEMA)
    custom.register_fake(body)
    custom.register_autograd(gradient, setup_context=save)
    alone, registered = torch.ops.fla_registration.alone.default, torch.ops.fla_registration.autograd.default
    return {
        "plain function": lambda q, k, v, g: body(q, k, v, g, None, 1.0, "torch")[0],
        "autograd.Function, forward takes ctx": function_calling(body),
        "autograd.Function with setup_context": function_with_setup_context(),
        "custom_op + register_autograd": lambda q, k, v, g: custom(q, k, v, g, None, 1.0, "torch")[0],
        "Library define/impl + register_autograd": lambda q, k, v, g: registered(q, k, v, g, None, 1.0, "torch")[0],
        "Library define/impl inside autograd.Function": function_calling(alone),
        "Library define/impl alone": lambda q, k, v, g: alone(q, k, v, g, None, 1.0, "torch")[0],
    }


def microseconds(run: Callable[[], object], calls: int = 2000) -> float:
    """Best of five rounds: what is measured is host work, and everything else only adds to it."""
    rounds = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(calls):
            run()
        rounds.append((time.perf_counter() - start) / calls * 1e6)
    return min(rounds)


def main() -> None:
    torch.set_num_threads(1)
    plain = [torch.zeros(1, 4, 1, 4) for _ in range(4)]
    leaves = [x.clone().requires_grad_() for x in plain]
    print(f"torch {torch.__version__}\n{'way':48}{'no grad':>10}{'grad':>10}{'+ backward':>12}")
    for name, op in ways().items():
        costs = [microseconds(lambda op=op: op(*plain)), microseconds(lambda op=op: op(*leaves))]
        if name not in WITHOUT_GRADIENT:
            costs.append(microseconds(lambda op=op: torch.autograd.grad(op(*leaves), leaves, plain[0]), 500))
        print(f"{name:48}" + "".join(f"{cost:10.1f}" for cost in costs), flush=True)


if __name__ == "__main__":
    main()
