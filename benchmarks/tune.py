"""Offline tuner: check and time every candidate block of every kernel that one op launches.

    python benchmarks/tune.py chunk_delta_rule [--sizes B=8,T=4096,H=16,K=128,V=128] [--dtype bfloat16]
                              [--stages walk,walk_back] [--warps 2,4,8] [--blocks 32,64,128] [--depths 1,2]

The tiles are those that the op looks up at these sizes, whichever tables they stand in. A candidate replaces one
kernel's block and counts only if outputs and gradients of a short call stay within twice the error of the shipped
tiles. Candidates are compiled and checked by several processes first, then timed one by one; the best of each kernel
belongs in the family's ``tiles.py``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from run import DEFAULTS, median_ms, read_sizes

from fla.ops._shared.cases import flatten
from fla.utils.numerics import get_err_ratio
from fla.utils.spec import SequenceOp, specs
from fla.utils.tiles import Block, TileKey, TileTable

#: Of the call that is checked: heads and channels are those of the timed one, for which kernels are compiled.
SHORT = {"B": 1, "T": 300}


class Lookup(NamedTuple):
    """A table that the op consulted, for which key."""

    table: TileTable[Any]
    key: TileKey

    def blocks(self) -> dict[str, Block]:
        """The block of each kernel that has one."""
        shipped = self.table.choose(self.key)
        return {name: block for name, block in shipped._asdict().items() if isinstance(block, Block)}

    @contextmanager
    def using(self, stage: str, block: Block) -> Iterator[None]:
        """Meanwhile the op takes ``block``."""
        shipped = self.table.choose(self.key)
        self.table._chosen[self.key] = shipped._replace(**{stage: block})
        try:
            yield
        finally:
            self.table._chosen[self.key] = shipped


class Call(NamedTuple):
    """Forward and backward of an op."""

    op: SequenceOp
    leaves: dict[str, torch.Tensor]
    weights: torch.Tensor
    """Of the outputs, in the sum that is differentiated."""

    @classmethod
    def random(cls, op: SequenceOp, sizes: dict[str, int], dtype: torch.dtype) -> Call:
        inputs = op.make(sizes, torch.Generator("cuda").manual_seed(0), dtype)
        with torch.no_grad():
            o = next(flatten(op.function(**inputs, backend="triton")))
        return cls(op, {name: x.requires_grad_() for name, x in inputs.items()}, torch.randn_like(o))

    def in_float64(self) -> Call:
        return self._replace(leaves={name: x.detach().double().requires_grad_() for name, x in self.leaves.items()})

    def results(self, backend: str = "triton") -> list[torch.Tensor]:
        """The output and the gradient of every operand."""
        o = next(flatten(self.op.function(**self.leaves, backend=backend)))
        return [o.detach(), *torch.autograd.grad(o, list(self.leaves.values()), self.weights.to(o.dtype))]


def lookups(call: Call) -> list[Lookup]:
    """What the op looks up, forward and backward."""
    seen: dict[tuple[int, TileKey], Lookup] = {}
    choose = TileTable.choose

    def recording(table: TileTable[Any], key: TileKey) -> Any:
        seen[id(table), key] = Lookup(table, key)
        return choose(table, key)

    TileTable.choose = recording  # type: ignore[method-assign]
    call.results()
    TileTable.choose = choose  # type: ignore[method-assign]
    return [lookup for lookup in seen.values() if hasattr(lookup.table.choose(lookup.key), "_asdict")]


def candidates(shipped: Block, options: argparse.Namespace) -> Iterator[Block]:
    """Blocks to try; one that holds all of K keeps doing so."""
    sizes, warps, depths = (
        [int(x) for x in text.split(",")] for text in (options.blocks, options.warps, options.depths)
    )
    widths = [shipped.k] if shipped.k > max(sizes) or options.keep_k else sizes
    for k, v, w, s in itertools.product(widths, sizes, warps, depths):
        yield Block(k, v, w, s)


def errors(truth: list[torch.Tensor], call: Call) -> list[float]:
    return [get_err_ratio(exact, got) for exact, got in zip(truth, call.results(), strict=True)]


def trials(found: list[Lookup], options: argparse.Namespace) -> list[tuple[int, str, Block]]:
    """Every candidate, by the table's number and the kernel's name."""
    return [
        (number, stage, block)
        for number, lookup in enumerate(found)
        for stage, shipped in lookup.blocks().items()
        if options.stages is None or stage in options.stages.split(",")
        for block in candidates(shipped, options)
    ]


def check(call: Call, options: argparse.Namespace, first: int, step: int) -> None:
    """Print, for every ``step``-th candidate, its number and what is wrong with it, if anything."""
    found = lookups(call)
    truth = call.in_float64().results("torch")
    limits = [2 * error for error in errors(truth, call)]
    for index, (number, stage, block) in list(enumerate(trials(found, options)))[first::step]:
        try:
            with found[number].using(stage, block):
                got = errors(truth, call)
            right = all(error <= limit for error, limit in zip(got, limits, strict=True))
            fault = "" if right else f"errors {[f'{error:.1e}' for error in got]}"
        except Exception as error:  # noqa: BLE001 - whatever a candidate ends in, the others are to be seen
            fault = f"{type(error).__name__}: {error}"[:100]
        print(json.dumps([index, fault]), flush=True)
        torch.cuda.synchronize()  # raises, and so ends the process, where the device is lost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("op")
    parser.add_argument("--sizes", default="")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--stages")
    parser.add_argument("--blocks", default="32,64,128")
    parser.add_argument("--warps", default="2,4,8")
    parser.add_argument("--depths", default="1,2,3")
    parser.add_argument("--keep-k", action="store_true", help="vary only how many channels of V a block has")
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--check", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = read_sizes(options.sizes, DEFAULTS["cuda"][0])
    dtype = getattr(torch, options.dtype)
    op = next(op for spec in specs("fla.ops") for op in spec.sequence_ops if op.name == options.op)
    if options.check:
        check(Call.random(op, sizes | SHORT, dtype), options, *map(int, options.check.split("/")))
        return

    def check_share(share: int) -> str:
        command = [sys.executable, __file__, *sys.argv[1:], "--check", f"{share}/{options.jobs}"]
        return subprocess.run(command, capture_output=True, text=True).stdout

    with ThreadPoolExecutor(options.jobs) as pool:
        lines = [line for text in pool.map(check_share, range(options.jobs)) for line in text.splitlines()]
    faults = dict(json.loads(line) for line in lines)
    call = Call.random(op, sizes, dtype)
    found = lookups(call)

    rows: dict[tuple[int, str], list[tuple[float, Block]]] = {}
    for index, (number, stage, block) in enumerate(trials(found, options)):
        if fault := faults.get(index, "the process ended"):
            print(f"{stage} {tuple(block)}: {fault}")
            continue
        with found[number].using(stage, block):
            rows.setdefault((number, stage), []).append((median_ms(call.results, "cuda"), block))
    print(f"forward and backward as shipped {median_ms(call.results, 'cuda'):.3f} ms")
    for (number, stage), timed in rows.items():
        print(f"{stage}, shipped {tuple(found[number].blocks()[stage])}:")
        for ms, block in sorted(timed)[:5]:
            print(f"  {ms:8.3f} ms  {tuple(block)}")


if __name__ == "__main__":
    main()
