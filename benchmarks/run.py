"""Time every op that has a spec against its floor: one CSV row per op, backend and direction, and a plot beside it.

    python benchmarks/run.py [--part fla.ops] [--only gla,ssd] [--sizes B=8,T=4096,H=16,K=128,V=128]
                             [--dtype bfloat16] [--out results]

The floor is the least that the op can move (or compute), from its spec, over the device's rates, which are measured
first with a large copy and a large matrix product.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from fla.ops._cases import flatten
from fla.utils._spec import SequenceOp, Sizes, Spec, specs

DEFAULTS = {
    "cuda": ({"B": 8, "T": 4096, "H": 16, "HV": 16, "K": 128, "V": 128, "M": 64}, torch.bfloat16, ("triton",)),
    "cpu": ({"B": 1, "T": 1024, "H": 4, "HV": 4, "K": 64, "V": 64, "M": 64}, torch.float32, ("torch", "reference")),
}


def read_sizes(text: str, defaults: Sizes) -> dict[str, int]:
    """Sizes of dimension letters, such as ``B=8,T=4096``, over the default ones."""
    return {**defaults, **{k: int(v) for k, v in (item.split("=") for item in text.split(",") if item)}}


def median_ms(run: Callable[[], object], device: str, repeats: int = 20) -> float:
    """Median time of one call; on a GPU by events, with the L2 cache overwritten before each."""
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


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default="fla.ops")
    parser.add_argument("--only", help="families, such as gla,ssd")
    parser.add_argument("--sizes", default="", help="dimension letters, such as B=8,T=4096")
    parser.add_argument("--dtype")
    parser.add_argument("--backends")
    parser.add_argument("--out", default="benchmarks/results")
    options = parser.parse_args()
    sizes, dtype, backends = DEFAULTS[device]
    sizes = read_sizes(options.sizes, sizes)
    dtype = getattr(torch, options.dtype) if options.dtype else dtype
    backends = tuple(options.backends.split(",")) if options.backends else backends

    bandwidth, throughput = rates(device, dtype)
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(f"{name}: copy {bandwidth / 1e9:.0f} GB/s, matrix product {throughput / 1e12:.2f} TFLOP/s in {dtype}")
    rows: list[dict[str, object]] = []
    only = options.only and options.only.split(",")
    for spec in specs(options.part):
        for op in spec.sequence_ops if only is None or spec.name in only else ():
            for backend in backends:
                for row in measure(spec, op, sizes, device, dtype, backend):
                    floor = max(float(str(row["bytes"])) / bandwidth, float(str(row["flops"])) / throughput) * 1e3
                    shape = " ".join(f"{k}={v}" for k, v in sizes.items())
                    rows.append(
                        {"device": name, "op": op.name, "backend": backend, "shape": shape, "dtype": str(dtype)}
                        | {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()}
                        | {"floor_ms": f"{floor:.4g}", "share_of_floor": f"{floor / float(str(row['ms'])):.3f}"}
                    )
                    print(" ".join(str(rows[-1][k]) for k in ("op", "backend", "direction", "ms", "floor_ms")))
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{device}.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    plot(rows, path.with_suffix(".png"))
    print(f"written: {path} and {path.with_suffix('.png')}")


if __name__ == "__main__":
    main()
