"""Launch every kernel over many short sequences, compile nothing, and check the grids.

    python -m fla.utils.testing.grids fla.ops

Every case of every spec of a part is called, forward and backward, with :data:`SEQUENCES` sequences of one step, or so
many rows, and few channels. The program prints the largest grid of each kernel. It fails where a GPU would not take a
grid, where more than blocks of channels and heads stands on the second or third axis, and where no case launches a
kernel.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from pkgutil import walk_packages
from typing import Any, cast

import torch
from triton.runtime import JITFunction

from fla.utils.spec import Case, Made, specs
from fla.utils.testing.dry_gpu import use

#: One more than the second and the third axis of a launch grid can have.
SEQUENCES = 65_536
#: What blocks of channels and heads stay below.
BOUNDED = 512
#: Channels of a stretched case; and key channels where there were more than 200, for kernels of wide heads alone.
FEW, WIDE = 4, 72
#: Cases whose gradients are taken from sequence to sequence in PyTorch, which would take long.
FORWARD_ALONE = (
    "fused_recurrent_gla: both decays, packed, reversed",
    "fused_recurrent_gated_delta_rule: all decays, packed",
)


def stretched(shape: Any) -> Any:
    """The shape of a case with :data:`SEQUENCES` sequences of one step, packed where the case is, or so many rows."""
    if not isinstance(shape, tuple):
        return replace(shape, **_stretched(vars(shape)))
    if hasattr(shape, "_replace"):
        return shape._replace(**_stretched(shape._asdict()))  # type: ignore[attr-defined]
    return SEQUENCES, min(shape[-1], FEW)


def _stretched(old: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a shape from the old ones."""
    packed, wide = bool(old.get("lengths")), old.get("K", 0) > 200
    options = old.get("options", {})
    # A mapping, pairs, or a record of them; only norms know groups.
    groups = dict(options).get("num_groups", 1) if "dim" in old else 1
    few = {name: min(old.get(name, 0), FEW) for name in ("K", "V", "D", "M", "out")}
    new = {
        **few,
        "K": WIDE if wide else few["K"],
        "V": 1 if wide else few["V"],
        "R": min(old.get("R", 0), FEW // 2),
        "B": 1 if packed else SEQUENCES,
        "T": SEQUENCES if packed else 1,
        "lengths": (1,) * SEQUENCES if packed else (),
        "H": 1,
        "HV": min(old.get("HV", 0) // old.get("H", 1), 2),
        "HK": min(old.get("HK", 0), 1),
        "N": SEQUENCES,
        "rows": (SEQUENCES,),
        "size": (SEQUENCES, FEW),
        "dim": groups * min(old.get("dim", 0) // groups, FEW),
        "offsets": (0,) * SEQUENCES if isinstance(old.get("offsets"), tuple) else old.get("offsets"),
        "decay": 1.0,
        "ignored": 0,
        # One that asks for [T, T] is left out.
        "options": {} if "output_attentions" in options else options,
    }
    return {name: value for name, value in new.items() if name in old}


def stretched_cases(part: str) -> Iterator[Case]:
    """The cases of the part's specs that kernels take, stretched; those that are the same then, once."""
    seen = set()
    for spec in specs(part):
        for case in spec.cases if "triton" in spec.backends else ():
            make = cast("partial[Made]", case.make)
            name, shape, *others = make.args
            arguments = (stretched(shape), *others)
            kind = (spec.name, name.partition(":")[0], make.func, repr(arguments))
            if kind not in seen:
                seen.add(kind)
                yield Case(name, partial(make.func, name, *arguments))


def launch(case: Case) -> None:
    """Forward and backward on CPU tensors, in float32."""
    call, inputs = case.make("cpu", torch.float32)
    results = [x for x in call(*inputs, backend="triton") if x.requires_grad]
    leaves = [x for x in inputs if x.requires_grad]
    if results and case.name not in FORWARD_ALONE:
        torch.autograd.grad(results, leaves, [torch.zeros_like(x) for x in results], allow_unused=True)


def kernels(part: str) -> set[str]:
    """The kernels of a part with their modules; functions that kernels call are none."""
    return {
        f"{module.name}.{name}"
        for module in walk_packages(import_module(part).__path__, f"{part}.")
        if module.name.endswith("kernels")
        for name, value in vars(import_module(module.name)).items()
        if isinstance(value, JITFunction) and name.endswith("_kernel") and value.__module__ == module.name
    }


def faults_of(grids: Mapping[str, Sequence[int]], part: str) -> list[str]:
    """What is wrong with the largest grids of a part."""
    faults = [f"{kernel}: no case launches it" for kernel in sorted(kernels(part) - grids.keys())]
    for kernel, (_, y, z) in grids.items():
        if max(y, z) > BOUNDED:
            faults.append(f"{kernel}: expected at most {BOUNDED} on the second and third axis, got {y} and {z}")
    return faults


def main(part: str) -> int:
    """Launch all, print the grids and the faults, and return 1 where there is one."""
    recorded = use(90, compiling=False)
    faults = []
    for case in stretched_cases(part):
        try:
            launch(case)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other cases are to be seen as well
            faults.append(f"{case.name}: {type(error).__name__}: {error}")
    largest: dict[str, Sequence[int]] = {}
    for grid in recorded.grids:
        largest[grid.kernel] = [*map(max, grid.size, largest.get(grid.kernel, grid.size))]
    faults += faults_of(largest, part)
    for kernel, size in largest.items():
        print(f"{kernel:<70}{' x '.join(map(str, size)):>20}")
    print("\n".join([f"\n{len(largest)} kernels of {part}, {len(faults)} faults", *faults]))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
