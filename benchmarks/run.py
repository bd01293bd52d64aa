"""Time every op that has a spec against its floor: one CSV row per op, backend and direction, and a plot beside it.

    python benchmarks/run.py [--part fla.ops] [--only gla,ssd] [--sizes B=8,T=4096,H=16,K=128,V=128]
                             [--dtype bfloat16] [--share 1/2] [--compare FILE.csv] [--out results]

The floor is the least that the op can move (or compute), from its spec, over the device's rates, which are measured
first with a large copy and a large matrix product. On a GPU it is the kernels that are timed: the GPU waits until the
host has submitted them all; they are compiled beforehand, by ``--jobs`` processes. With ``--compare`` nothing is
written: what takes over 5 % longer than the file says is measured again, named if it still does, and makes the exit
code 1.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from fla.ops._shared.cases import flatten
from fla.utils.spec import SequenceOp, Sizes, Spec, specs

#: The GPU sleeps for so long, some 8 ms, while the host submits a call.
_HOLD_CYCLES = 16_000_000
#: What a time may be over the recorded one.
SLOWER = 1.05
DEFAULTS = {
    "cuda": ({"B": 8, "T": 4096, "H": 16, "HV": 16, "K": 128, "V": 128, "M": 64}, torch.bfloat16, ("triton",)),
    "cpu": ({"B": 1, "T": 1024, "H": 4, "HV": 4, "K": 64, "V": 64, "M": 64}, torch.float32, ("torch", "reference")),
}


def read_sizes(text: str, defaults: Sizes) -> dict[str, int]:
    """Sizes of dimension letters, such as ``B=8,T=4096``, over the default ones."""
    return {**defaults, **{k: int(v) for k, v in (item.split("=") for item in text.split(",") if item)}}


def median_ms(run: Callable[[], object], device: str, repeats: int = 20) -> float:
    """Median time of one call; of a GPU's work alone, with the L2 cache overwritten before each."""
    for _ in range(2):
        run()
    times = []
    if device == "cpu":
        for _ in range(max(3, repeats // 4)):
            start = time.perf_counter()
            run()
            times.append((time.perf_counter() - start) * 1e3)
        return sorted(times)[len(times) // 2]
    flush = torch.empty(256 << 20, dtype=torch.int8, device=device)
    for _ in range(repeats):
        flush.zero_()
        start_event, end_event = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda._sleep(_HOLD_CYCLES)
        start_event.record()
        run()
        end_event.record()
        torch.cuda.synchronize()
        times.append(start_event.elapsed_time(end_event))
    return sorted(times)[len(times) // 2]


def rates(device: str, dtype: torch.dtype) -> tuple[float, float]:
    """Bytes a second of a copy, and floating-point operations a second of a matrix product."""
    elements, side = (1 << 30, 8192) if device == "cuda" else (1 << 24, 1024)
    source = torch.randn(elements // dtype.itemsize, device=device).to(dtype)
    target = torch.empty_like(source)
    a = torch.randn(side, side, device=device).to(dtype)
    copy_ms = median_ms(lambda: target.copy_(source), device)
    product_ms = median_ms(lambda: a @ a, device)
    return 2 * source.nbytes / copy_ms * 1e3, 2 * side**3 / product_ms * 1e3


def call_once(op: SequenceOp, sizes: Sizes, device: str, dtype: torch.dtype, backends: Sequence[str]) -> None:
    """Forward and backward, so that all kernels are compiled."""
    inputs = {name: x.requires_grad_() for name, x in op.make(sizes, torch.Generator(device), dtype).items()}
    for backend in backends:
        o = next(flatten(op.function(**inputs, backend=backend)))
        torch.autograd.grad(o, list(inputs.values()), torch.ones_like(o))


def compile_beforehand(jobs: int, share: int, shares: int) -> None:
    """Compile the kernels of this run's ops, each process those of a part of them."""
    parts = [f"{share + job * shares}/{jobs * shares}" for job in range(jobs)]
    command = [sys.executable, *sys.argv, "--compile-only", "--share"]
    for process in [subprocess.Popen([*command, part]) for part in parts]:
        process.wait()


def measure(
    spec: Spec, op: SequenceOp, sizes: Sizes, device: str, dtype: torch.dtype, backend: str
) -> Iterator[dict[str, object]]:
    inputs = op.make(sizes, torch.Generator(device).manual_seed(0), dtype)
    leaves = {name: x.requires_grad_() for name, x in inputs.items()}

    def forward() -> torch.Tensor:
        return next(flatten(op.function(**leaves, backend=backend)))

    weights = torch.randn_like(forward())

    def both() -> None:
        torch.autograd.grad(forward(), list(leaves.values()), weights)

    with torch.no_grad():
        fwd = median_ms(forward, device)
    cost = spec.cost(sizes, dtype.itemsize)
    yield {"direction": "forward", "ms": fwd, "bytes": cost.bytes_fwd, "flops": cost.flops_fwd}
    moved, computed = cost.bytes_fwd + cost.bytes_bwd, cost.flops_fwd + cost.flops_bwd
    yield {"direction": "forward+backward", "ms": median_ms(both, device), "bytes": moved, "flops": computed}


def plot(rows: list[dict[str, object]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = [f"{row['op']} {row['backend']}\n{row['direction']}" for row in rows]
    figure, axis = plt.subplots(figsize=(8, 1 + 0.5 * len(rows)), layout="constrained")
    axis.barh(names, [float(str(row["ms"])) for row in rows], label="measured")
    axis.barh(names, [float(str(row["floor_ms"])) for row in rows], label="floor")
    axis.set(xlabel="ms", xscale="log")
    axis.invert_yaxis()
    axis.legend()
    figure.savefig(path)


Key = tuple[str, ...]


def key_of(row: dict[str, object]) -> Key:
    """What a row of the table times."""
    return tuple(str(row[name]) for name in ("device", "family", "op", "backend", "shape", "dtype", "direction"))


def read_times(path: Path) -> dict[Key, float]:
    """The times of an earlier run, none where there was none."""
    if not path.exists():
        print(f"{path} is not there: nothing to compare with")
        return {}
    with path.open(newline="") as file:
        return {key_of(dict(row)): float(row["ms"]) for row in csv.DictReader(file)}


def time_op(
    spec: Spec, op: SequenceOp, sizes: Sizes, device: str, dtype: torch.dtype, backend: str, rated: tuple[float, float]
) -> Iterator[dict[str, object]]:
    """Rows of the table: an op forward, and forward and backward."""
    bandwidth, throughput = rated
    for row in measure(spec, op, sizes, device, dtype, backend):
        floor = max(float(str(row["bytes"])) / bandwidth, float(str(row["flops"])) / throughput) * 1e3
        yield (
            {"device": torch.cuda.get_device_name() if device == "cuda" else "CPU", "family": spec.name, "op": op.name}
            | {"backend": backend, "shape": " ".join(f"{k}={v}" for k, v in sizes.items()), "dtype": str(dtype)}
            | {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()}
            | {"floor_ms": f"{floor:.4g}", "share_of_floor": f"{floor / float(str(row['ms'])):.3f}"}
            | {"torch": torch.__version__}
        )


def is_slower(row: dict[str, object], recorded: dict[Key, float]) -> bool:
    """Whether a row takes over 5 % longer than was recorded; False where nothing was."""
    return float(str(row["ms"])) > SLOWER * recorded.get(key_of(row), float("inf"))


def write(rows: list[dict[str, object]], path: Path) -> None:
    """The table and its plot."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    plot(rows, path.with_suffix(".png"))
    print(f"written: {path} and {path.with_suffix('.png')}")


def main() -> int:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default="fla.ops")
    parser.add_argument("--only", help="families, such as gla,ssd")
    parser.add_argument("--sizes", default="", help="dimension letters, such as B=8,T=4096")
    parser.add_argument("--dtype")
    parser.add_argument("--backends")
    parser.add_argument("--share", default="1/1", help="the first half of the ops: 1/2")
    parser.add_argument("--jobs", type=int, default=min(8, os.cpu_count() or 1), help="processes that compile")
    parser.add_argument("--compile-only", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--compare", type=Path, help="the table of an earlier run")
    parser.add_argument("--out", default="benchmarks/results")
    options = parser.parse_args()
    default_sizes, dtype, backends = DEFAULTS[device]
    dtype = getattr(torch, options.dtype) if options.dtype else dtype
    backends = tuple(options.backends.split(",")) if options.backends else backends
    only = options.only and options.only.split(",")
    ops = [(spec, op) for spec in specs(options.part) for op in spec.sequence_ops if only is None or spec.name in only]
    share, shares = map(int, options.share.split("/"))
    ops = ops[share - 1 :: shares]
    if options.compile_only:
        for spec, op in ops:
            call_once(op, read_sizes(options.sizes, {**default_sizes, **spec.timed_sizes}), device, dtype, backends)
        return 0
    if device == "cuda":
        compile_beforehand(options.jobs, share, shares)
    recorded = read_times(options.compare) if options.compare else {}
    rated = rates(device, dtype)
    print(f"copy {rated[0] / 1e9:.0f} GB/s, matrix product {rated[1] / 1e12:.2f} TFLOP/s in {dtype}")
    rows: list[dict[str, object]] = []
    slower: list[dict[str, object]] = []
    for spec, op in ops:
        sizes = read_sizes(options.sizes, {**default_sizes, **spec.timed_sizes})
        for backend in backends:
            measured = list(time_op(spec, op, sizes, device, dtype, backend, rated))
            if any(is_slower(row, recorded) for row in measured):
                measured = list(time_op(spec, op, sizes, device, dtype, backend, rated))
            rows += measured
            slower += [row for row in measured if is_slower(row, recorded)]
            for row in measured:
                before = recorded.get(key_of(row))
                print(
                    f"{op.name:40}{backend:10}{row['direction']:18}{row['ms']:>9} ms, floor {row['floor_ms']:>8}",
                    end="",
                )
                print("" if before is None else f", recorded {before:.4g}", flush=True)
    if not options.compare:
        write(rows, Path(options.out) / f"{device}.csv")
    print(f"{len(rows)} timed, {len(slower)} over 5 % slower than recorded")
    for row in slower:
        print(f"slower: {row['op']} {row['direction']}: {row['ms']} ms, recorded {recorded[key_of(row)]:.4g}")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
