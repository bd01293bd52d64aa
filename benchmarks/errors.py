"""How far any importable ``fla`` is from the float64 truth, so that two libraries can be held to the same inputs.

    python benchmarks/errors.py --write theirs.pt      in an environment with the other library [--only chunk_kda]
    python benchmarks/errors.py --write ours.pt        with this one
    python benchmarks/errors.py --compare theirs.pt ours.pt

The last one needs this library: truth is its PyTorch backend in float64, which the tests hold to the recurrence. The
budget is what ``fla.utils.numerics`` allows.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import torch
import torch.nn.functional as F

B, T, H, D = 2, 1024, 16, 128
Tensors = dict[str, torch.Tensor]


def normal() -> torch.Tensor:
    return torch.randn(B, T, H, D, dtype=torch.float64)


def unit() -> torch.Tensor:
    return F.normalize(normal(), dim=-1)


def strength() -> torch.Tensor:
    return torch.rand(B, T, H, dtype=torch.float64)


def gla() -> Tensors:
    return {"q": normal(), "k": normal(), "v": normal(), "g": F.logsigmoid(normal()) / 16}


def delta_rule() -> Tensors:
    return {"q": normal(), "k": unit(), "v": normal(), "beta": strength()}


def gated_delta_rule() -> Tensors:
    return {**delta_rule(), "g": F.logsigmoid(torch.randn(B, T, H, dtype=torch.float64))}


def kda() -> Tensors:
    return {**delta_rule(), "g": F.logsigmoid(normal())}


def rwkv7() -> Tensors:
    key, rate = unit(), normal().sigmoid()
    decay = -0.606531 * normal().sigmoid()
    return {"r": normal(), "w": decay, "k": normal(), "v": normal(), "a": -key, "b": key * rate}


CASES: dict[str, tuple[str, Callable[[], Tensors]]] = {
    "chunk_gla": ("fla.ops.gla", gla),
    "chunk_delta_rule": ("fla.ops.delta_rule", delta_rule),
    "chunk_gated_delta_rule": ("fla.ops.gated_delta_rule", gated_delta_rule),
    "chunk_kda": ("fla.ops.kda", kda),
    "chunk_rwkv7": ("fla.ops.rwkv7", rwkv7),
}


def run(name: str, dtype: torch.dtype, device: str, backend: str | None = None) -> Tensors:
    """Output and gradients of one case, from the same numbers whatever the dtype and the device.

    Inputs are rounded to bfloat16 first: what is compared is arithmetic.
    """
    module, make = CASES[name]
    torch.manual_seed(0)
    inputs = {n: x.bfloat16().to(device, dtype).requires_grad_() for n, x in make().items()}
    weights = normal().bfloat16().to(device, dtype)
    options = {} if backend is None else {"backend": backend}
    o = getattr(import_module(module), name)(**inputs, **options)[0]
    found = {"o": o.detach()}
    try:
        gradients = torch.autograd.grad(o, list(inputs.values()), weights)
    except Exception as error:  # noqa: BLE001 - another library's: what it can do is still to be seen
        print(f"{name}: no gradients: {type(error).__name__}: {str(error)[:200]}")
    else:
        found.update((f"d{n}", x) for n, x in zip(inputs, gradients))
    return found


def compare(files: list[Path], device: str) -> None:
    from fla.utils.numerics import error_budget_for, get_err_ratio

    libraries = {file.stem: torch.load(file, map_location=device) for file in files}
    print(f"{'op':24}{'tensor':8}{'budget':>10}" + "".join(f"{label:>12}" for label in libraries))
    for name in dict.fromkeys(name for results in libraries.values() for name in results):
        truth, baseline = (run(name, dtype, device, "torch") for dtype in (torch.float64, torch.bfloat16))
        for what, expected in truth.items():
            results = [tensors.get(name, {}).get(what) for tensors in libraries.values()]
            errors = "".join(f"{'-' if r is None else format(get_err_ratio(expected, r), '.2e'):>12}" for r in results)
            print(f"{name:24}{what:8}{error_budget_for(expected, baseline[what], torch.bfloat16):10.2e}{errors}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="FILE")
    parser.add_argument("--compare", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--only", default=",".join(CASES), help="ops to write the results of")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    if options.write:
        names = options.only.split(",")
        torch.save({name: run(name, torch.bfloat16, options.device) for name in names}, options.write)
    if options.compare:
        compare(options.compare, options.device)


if __name__ == "__main__":
    main()
