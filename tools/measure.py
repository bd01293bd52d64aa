"""How much of the code is argument lists, and how long its functions are.

    python tools/measure.py [FOLDER ...]

Prints for each folder (fla.ops and fla.modules unless given): lines of Python; lines that hold one parameter or one
argument and nothing else; calls that pass nine or more positional arguments; the longest function.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
DEFAULT = ("packages/fla-ops/src/fla/ops", "packages/fla-modules/src/fla/modules")
#: ``name,`` or ``name: Type = value,`` or ``name=value,`` or ``*names,``, with or without a comment.
ONE_ARGUMENT = re.compile(r"^\s*\*{0,2}[\w.]+(\[[^\]]*\])?(: [^=]+)?( ?= ?[^,=]+)?,\s*(#.*)?$")
MANY = 9


class Measured(NamedTuple):
    """The figures of a folder."""

    lines: int
    single: int
    crowded: list[str]
    longest: tuple[int, str]


def _crowded(tree: ast.AST, path: Path) -> Iterator[str]:
    for node in ast.walk(tree):
        # A kernel takes its tensors by position: its launch is a subscript that is called.
        if isinstance(node, ast.Call) and not isinstance(node.func, ast.Subscript) and len(node.args) >= MANY:
            yield f"{path}:{node.lineno}: {ast.unparse(node.func)} takes {len(node.args)}"


def measure(folder: Path) -> Measured:
    """Measure every Python file under a folder."""
    lines = single = 0
    crowded: list[str] = []
    longest = (0, "")
    for path in sorted(folder.rglob("*.py")):
        source = path.read_text()
        tree = ast.parse(source)
        lines += len(source.splitlines())
        single += sum(bool(ONE_ARGUMENT.match(line)) for line in source.splitlines())
        crowded += _crowded(tree, path)
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno:
                longest = max(longest, (node.end_lineno - node.lineno + 1, f"{path}: {node.name}"))
    return Measured(lines, single, crowded, longest)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, default=[ROOT / folder for folder in DEFAULT])
    parser.add_argument("--list", action="store_true", help="name the calls with many positional arguments")
    options = parser.parse_args()
    for folder in options.folders:
        found = measure(folder)
        print(f"{folder}: {found.lines} lines, {found.single} of them one argument ({found.single / found.lines:.0%}),")
        print(f"  {len(found.crowded)} calls with {MANY} or more positional arguments, longest function", end=" ")
        print(f"{found.longest[0]} lines: {found.longest[1]}")
        if options.list:
            print("\n".join(found.crowded))
    return 0


if __name__ == "__main__":
    sys.exit(main())
