"""Prove that moving code changed nothing: record before, compare after.

    python tools/unchanged.py results FILE [--device cpu] [--dtypes float32,bfloat16] [--share 1/2]
    python tools/unchanged.py kernels FILE [--arch 90] [--cases 1/4]

``results`` hashes every output and gradient of every conformance case, bit for bit. ``kernels`` compiles ahead of time
and lists registers, stack and shared memory of each launch, in the order of the launches; names may change.
The first call writes FILE; a later one compares with it, prints what differs, and returns 1 if anything does.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from fla.utils.spec import Case, specs
from fla.utils.testing.conformance import outputs_and_gradients

PARTS = ("fla.ops", "fla.modules")


def digest(x: torch.Tensor) -> str:
    """A hash of a tensor's dtype, shape and bits."""
    bits = x.detach().cpu().contiguous().flatten().view(torch.uint8) if x.numel() else x.cpu().flatten()
    return hashlib.sha256(f"{x.dtype}{tuple(x.shape)}".encode() + bytes(bits.tolist())).hexdigest()[:16]


def selected(device: str, share: str) -> Iterator[tuple[str, Case]]:
    """The cases of a share with the backend that runs them here; large ones on a GPU alone."""
    first, step = map(int, share.split("/"))
    backend = "torch" if device == "cpu" else "triton"
    every = [
        (backend if backend in spec.backends else "torch", case)
        for part in PARTS
        for spec in specs(part)
        for case in spec.cases
        if device != "cpu" or "large" not in case.tags
    ]
    yield from every[first - 1 :: step]


def results(device: str, dtypes: list[str], share: str) -> dict[str, str]:
    """Title of a case, dtype and tensor -> hash, or the error that it raised."""
    torch.set_num_threads(1)
    found: dict[str, str] = {}
    for backend, case in selected(device, share):
        for dtype in dtypes:
            title = f"{case.name} | {dtype}"
            try:
                function, inputs = case.make(device, getattr(torch, dtype))
                tensors = outputs_and_gradients(case.name, True, function, inputs, backend)
                found |= {f"{title} | {what}": digest(x) for what, x in tensors.items()}
            except Exception as error:  # noqa: BLE001 - an error is a result: it has to stay as it is
                found[title] = f"{type(error).__name__}: {error}"[:200]
    return found


def kernels(arch: str, cases: str) -> dict[str, str]:
    """Case and number of a launch -> what the compiled kernel takes."""
    with TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "fla.utils.testing.aot", "--arch", arch, "--cases", cases]
        subprocess.run([*command, "--json", str(report)], check=False, stdout=subprocess.DEVNULL)
        compiled = json.loads(report.read_text())["compiled"]
    found: dict[str, str] = {}
    counts: dict[str, int] = {}
    for kernel in compiled:
        title, launch = f"{kernel['family']} | {kernel['case']}", kernel["launch"]
        counts[title] = counts.get(title, 0) + 1
        taken = launch["resources"] or {}
        found[f"{title} | {counts[title]}"] = (
            f"{taken.get('registers')} registers, {taken.get('stack_bytes')} bytes of stack, "
            f"{launch['shared_bytes']} of shared memory, {launch['num_warps']} warps, {launch['num_stages']} stages"
        )
    return found


def compare(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """A line for each difference."""
    return [
        f"{title}: {before.get(title, 'not there')} -> {after.get(title, 'not there')}"
        for title in sorted(before.keys() | after.keys())
        if before.get(title) != after.get(title)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("results", "kernels"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--share", default="1/1", help="every second case, from the first: 1/2")
    parser.add_argument("--arch", default="90")
    parser.add_argument("--cases", default="1/1", help="of each family every fourth case, from the first: 1/4")
    options = parser.parse_args()
    if options.what == "results":
        found = results(options.device, options.dtypes.split(","), options.share)
    else:
        found = kernels(options.arch, options.cases)
    if not options.file.exists():
        options.file.write_text(json.dumps(found, indent=1))
        print(f"{len(found)} recorded in {options.file}")
        return 0
    differences = compare(json.loads(options.file.read_text()), found)
    print("\n".join([*differences[:100], f"{len(found)} compared, {len(differences)} differ"]))
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
