"""Offline tuner of the chunked gated linear attention kernels: time every candidate block of every kernel.

    python benchmarks/tune_gla.py --heads 16 --dim 128 [--dtype bfloat16] [--stages state,output,...]

Each candidate replaces one kernel's block in the shipped tile. It counts only if outputs and gradients stay within
the error that the shipped tile makes against the float64 reference, twice over. The best rows belong in
``fla/ops/gla/tiles.py``.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from triton.errors import TritonError
from triton.testing import do_bench

from fla.ops.gla import chunk_gla, chunk_triton as host
from fla.ops.gla.tiles import CHUNK_TILES, Block, ChunkTile
from fla.utils._tiles import tile_key
from fla.utils.numerics import get_err_ratio

STAGES = ("state", "output", "value_grad", "key_grad")


def candidates(dim: int, dtype: torch.dtype, warps: list[int], stages: list[int]) -> Iterator[Block]:
    """Blocks to try. Half-precision ones are at least 64 wide; see ``CHUNK_TILES`` for why."""
    sizes = [16, 32, 64] if dtype == torch.float32 else [64, 128]
    for k, v, w, s in itertools.product(sizes, sizes, warps, stages):
        if k <= max(dim, sizes[0]) and v <= max(dim, sizes[0]):
            yield Block(k, v, w, s)


def inputs(batch: int, time: int, heads: int, dim: int, dtype: torch.dtype) -> list[torch.Tensor]:
    make = lambda: torch.randn(batch, time, heads, dim, device="cuda", dtype=dtype).requires_grad_()  # noqa: E731
    gate = (F.logsigmoid(torch.randn(batch, time, heads, dim, device="cuda")) / 16).to(dtype).requires_grad_()
    return [make(), make(), make(), gate]


def results(args: list[torch.Tensor], do: torch.Tensor, backend: str) -> list[torch.Tensor]:
    o, _ = chunk_gla(*args, backend=backend)
    return [o, *torch.autograd.grad(o, args, do.to(o.dtype))]


def run_stage(stage: str, args: list[torch.Tensor], do: torch.Tensor) -> None:
    """Run the part of a call that ``stage`` takes: forward for state and output, backward for the rest."""
    q, k, v, g = (x.detach() for x in args)
    scale = q.shape[-1] ** -0.5
    if stage in ("state", "output"):
        host.chunk_gla_fwd_triton(q, k, v, g, None, None, scale, True)
    else:
        scores = q.new_empty(*q.shape[:3], CHUNK_TILES.choose(tile_key(q, v.shape[-1])).chunk).normal_()
        host.chunk_gla_bwd_triton(q, k, v, g, None, scores, do, None, None, scale)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--time", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--warps", default="4,8")
    parser.add_argument("--depths", default="1,2,3")
    parser.add_argument("--out")
    options = parser.parse_args()
    dtype = getattr(torch, options.dtype)
    small = inputs(1, 200, 2, options.dim, dtype)
    small_do = torch.randn_like(small[2])
    truth = results([x.detach().double().requires_grad_() for x in small], small_do, "torch")
    large = inputs(options.batch, options.time, options.heads, options.dim, dtype)
    do = torch.randn_like(large[2])
    key = tile_key(large[0], options.dim)
    shipped = CHUNK_TILES.choose(key)
    limits = [2 * get_err_ratio(a, b) for a, b in zip(truth, results(small, small_do, "triton"), strict=True)]
    print("shipped", shipped, "errors x2", [f"{x:.1e}" for x in limits], flush=True)
    warps, depths = ([int(x) for x in text.split(",")] for text in (options.warps, options.depths))
    for stage in options.stages.split(","):
        rows = []
        for block in candidates(options.dim, dtype, warps, depths):
            CHUNK_TILES._chosen[key] = shipped._replace(**{stage: block})
            row = {"stage": stage, "block": list(block)}
            try:
                errors = [get_err_ratio(a, b) for a, b in zip(truth, results(small, small_do, "triton"), strict=True)]
                row["right"] = all(e <= limit for e, limit in zip(errors, limits, strict=True))
                row["ms"] = do_bench(partial(run_stage, stage, large, do), warmup=5, rep=30, return_mode="median")
            except (RuntimeError, TritonError) as error:  # a candidate may not fit the chip: note it and go on
                row["error"] = f"{type(error).__name__}: {error}"[:120]
            rows.append(row)
            if options.out:
                with open(options.out, "a") as file:
                    file.write(json.dumps(row) + "\n")
        CHUNK_TILES._chosen[key] = shipped
        rows.sort(key=lambda row: row.get("ms", 1e9))
        for row in rows[:6] + [row for row in rows if not row.get("right", True)][:4]:
            print(json.dumps(row), flush=True)
        best = next(row for row in rows if row.get("right"))
        shipped = shipped._replace(**{stage: Block(*best["block"])})
    print("best", ChunkTile(*shipped))


if __name__ == "__main__":
    main()
