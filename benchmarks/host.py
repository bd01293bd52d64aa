"""Time what the host does for a call of every op and of the common modules, beside ``x * 2`` in the same process.

    python benchmarks/host.py [--sizes B=1,T=128,H=2,K=64,V=64] [--only gla,RMSNorm] [--dtype bfloat16] [--dry]

Columns, in microseconds: a call without gradients and one with them, each on an idle GPU until it returns, and the
backward pass straight after; then both with gradients as a multiple of ``x * 2``. Last, in milliseconds, forward and
backward as a script sees them that waits for each (eager), and the GPU's part of them (the queue is held while the host
submits). ``--dry`` measures without a GPU what Python and PyTorch take, with a driver that launches nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F

from fla.ops._shared.cases import flatten
from fla.utils.spec import SequenceOp, specs

SIZES = {"B": 1, "T": 128, "H": 2, "HV": 2, "K": 64, "V": 64, "M": 16}
REPEATS = 40
_HOLD_CYCLES = 16_000_000


class Call(NamedTuple):
    """What is timed, and the tensors that get gradients."""

    run: Callable[[], object]
    leaves: Sequence[torch.Tensor]


class Times(NamedTuple):
    """Microseconds of the host, and milliseconds of forward and backward."""

    plain: float
    forward: float
    backward: float
    eager_ms: float
    gpu_ms: float


def yardsticks(x: torch.Tensor) -> Iterator[tuple[str, Call]]:
    """What PyTorch itself takes."""
    weight = torch.ones(x.shape[-1], device=x.device, dtype=x.dtype, requires_grad=True)
    yield "x * 2", Call(lambda: x * 2, [x])
    yield "F.rms_norm", Call(lambda: F.rms_norm(x, weight.shape, weight), [x, weight])


def modules(x: torch.Tensor, heads: torch.Tensor) -> Iterator[tuple[str, Call]]:
    """Modules on x ``[B, T, D]`` and heads ``[B, T, H, K]``."""
    from fla import modules as m
    from fla.modules.token_shift import token_shift

    width, place = x.shape[-1], {"device": x.device, "dtype": x.dtype}
    made = {
        "RMSNorm": m.RMSNorm(width).to(**place),
        "LayerNorm": m.LayerNorm(width).to(**place),
        "FusedRMSNormGated": m.FusedRMSNormGated(width).to(**place),
        "ShortConvolution": m.ShortConvolution(width, 4, activation="silu").to(**place),
        "RotaryEmbedding": m.RotaryEmbedding(heads.shape[-1]).to(x.device),
    }
    inputs = {"FusedRMSNormGated": (x, x), "RotaryEmbedding": (heads, heads)}
    for name, module in made.items():
        given = inputs.get(name, (x,))
        yield name, Call(partial(module, *given), [given[0], *module.parameters()])
    target = torch.zeros(x.shape[1], device=x.device, dtype=torch.long)
    yield "l2_norm", Call(lambda: m.l2_norm(heads), [heads])
    yield "token_shift", Call(lambda: token_shift(x), [x])
    yield "swiglu", Call(lambda: m.swiglu(x, x), [x])
    yield "cross entropy", Call(lambda: m.FusedCrossEntropyLoss()(x[0], target), [x])


def op_call(op: SequenceOp, sizes: dict[str, int], device: str, dtype: torch.dtype) -> Call:
    """An op on what its spec draws."""
    inputs = op.make(sizes, torch.Generator().manual_seed(0), dtype)
    leaves = {name: x.to(device).requires_grad_() for name, x in inputs.items()}
    return Call(partial(op.function, **leaves), list(leaves.values()))


def calls(sizes: dict[str, int], device: str, dtype: torch.dtype) -> Iterator[tuple[str, Callable[[], Call]]]:
    """Everything that is timed, by name; made when it is its turn."""
    x = torch.randn(sizes["B"], sizes["T"], sizes["H"] * sizes["K"], device=device).to(dtype).requires_grad_()
    heads = x.detach().unflatten(-1, (sizes["H"], sizes["K"])).clone().requires_grad_()
    for name, call in (*yardsticks(x), *modules(x, heads)):
        yield name, partial(lambda call: call, call)
    for spec in specs("fla.ops"):
        for op in spec.sequence_ops if "triton" in spec.backends else ():
            yield op.name, partial(op_call, op, sizes, device, dtype)


def median(numbers: Sequence[float]) -> float:
    return sorted(numbers)[len(numbers) // 2]


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def clocked(run: Callable[[], object]) -> tuple[float, object]:
    """Microseconds until ``run`` returns, on an idle GPU."""
    wait()
    start = time.perf_counter()
    result = run()
    return (time.perf_counter() - start) * 1e6, result


def measure(call: Call) -> Times:
    def results() -> list[torch.Tensor]:
        return [x for x in flatten(call.run()) if x.requires_grad]

    gradients = [torch.ones_like(x) for x in results()]

    def both() -> None:
        for x in call.leaves:
            x.grad = None
        torch.autograd.backward(results(), gradients)

    for _ in range(3):
        both()
    plain, forward, backward, eager = [], [], [], []
    for _ in range(REPEATS):
        with torch.no_grad():
            plain.append(clocked(call.run)[0])
        took, made = clocked(call.run)
        forward.append(took)
        outputs = [x for x in flatten(made) if x.requires_grad]
        for x in call.leaves:
            x.grad = None
        start = time.perf_counter()
        torch.autograd.backward(outputs, gradients)
        backward.append((time.perf_counter() - start) * 1e6)
        eager.append(clocked(lambda: (both(), wait()))[0] / 1e3)
    return Times(*map(median, (plain, forward, backward, eager)), _gpu_ms(both))


def _gpu_ms(run: Callable[[], object]) -> float:
    if not torch.cuda.is_available():
        return 0.0
    times = []
    for _ in range(REPEATS // 4):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda._sleep(_HOLD_CYCLES)
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="", help="over " + ",".join(f"{k}={v}" for k, v in SIZES.items()))
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--only")
    parser.add_argument("--dry", action="store_true")
    options = parser.parse_args()
    if options.dry:
        from fla.utils import backends
        from fla.utils.testing.dry_gpu import use

        use(90)
        backends.PROCESS_BACKEND = "triton"
        torch.set_num_threads(1)
    elif not torch.cuda.is_available():
        sys.exit("no CUDA GPU: --dry measures what Python and PyTorch take of the host")
    sizes = {**SIZES, **{k: int(v) for k, v in (item.split("=") for item in options.sizes.split(",") if item)}}
    only = options.only and options.only.split(",")
    print(
        f"{'':28}{'no grad':>9}{'forward':>9}{'backward':>9}{'us':>4}{'x fwd':>8}{'x f+b':>7}{'eager':>9}{'GPU':>7} ms"
    )
    unit: Times | None = None
    for name, make in calls(sizes, "cpu" if options.dry else "cuda", getattr(torch, options.dtype)):
        if only and unit is not None and name not in only:
            continue
        t = measure(make())
        unit = unit or t
        print(
            f"{name:28}{t.plain:9.0f}{t.forward:9.0f}{t.backward:9.0f}{'':4}{t.forward / unit.forward:8.1f}"
            f"{(t.forward + t.backward) / (unit.forward + unit.backward):7.1f}{t.eager_ms:9.3f}{t.gpu_ms:7.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
