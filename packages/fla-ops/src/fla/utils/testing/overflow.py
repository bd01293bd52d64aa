"""Find, in what Triton makes of a kernel, products that overflow 32 bits on their way to a pointer.

Integers are followed as intervals: programs, integer arguments and loaded integers may be as large as 32 bits hold, and
what comes of them is bounded by divisions, remainders and loops alone. An argument beyond 32 bits makes Triton compile
another kernel, in which it is 64 bits wide; the danger is a product of those that are not.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from fla.utils.tiles import MOST_HEADS

#: What programs, steps, rows and strides may be; the rest of 32 bits is for rounding up to whole blocks.
LARGEST = 2**31 - 2**16
#: How far below zero an offset may be: a few rows before a block.
LOWEST = -(2**16)
#: Products that are no larger than the steps of a sequence, though their factors alone do not tell.
WITHIN_STEPS = ("%first", "%offset")
#: Kernels with so few programs that each of them sums up a part of a gradient.
SUMMING = ("norm_bwd_kernel", "part_sum_kernel", "conv_bwd_kernel")
MOST_SUMMING = 2**15

_OPERATION = re.compile(r"^\s*(%[\w#]+)(?::\d+)? = \"?([\w.]+)\"? ?(.*)$")
_LOOP = re.compile(r"scf\.for (%\w+) = (%\w+) to (%\w+) step")
_KERNEL = re.compile(r"tt\.func public @(\w+)\(")
_ARGUMENT = re.compile(r"(%\w+): i32\b")
_CONSTANT = re.compile(r"(?:dense<)?(-?\d+)>? :")
_RANGE = re.compile(r"end = (\d+) : i32, start = (\d+) : i32")
_RESULT = re.compile(r"\bi(32|64)>?\s*$")
_LOCATION = re.compile(r" loc\(.*$")

_SAME = ("tt.splat", "tt.expand_dims", "tt.broadcast", "tt.reshape", "tt.trans", "arith.extsi")


class Interval(NamedTuple):
    """The least and the largest that an integer can be."""

    least: int
    most: int


class _Value(NamedTuple):
    """What an operation gives."""

    interval: Interval | None
    """None where nothing is known."""
    operation: str
    line: str
    operands: tuple[_Value, ...]
    overflows: bool


def _products(a: Interval, b: Interval) -> Interval:
    ends = [x * y for x in a for y in b]
    return Interval(min(ends), max(ends))


def _quotients(a: Interval, b: Interval) -> Interval:
    least = max(b.least, 1)
    return Interval(min(0, a.least // least), max(0, a.most // least))


def _remainders(a: Interval, b: Interval) -> Interval:
    most = max(b.most - 1, 0)
    return Interval(0 if a.least >= 0 else -most, min(max(a.most, 0), most))


_ARITHMETIC: dict[str, Callable[[Interval, Interval], Interval]] = {
    "arith.addi": lambda a, b: Interval(a.least + b.least, a.most + b.most),
    "arith.subi": lambda a, b: Interval(a.least - b.most, a.most - b.least),
    "arith.muli": _products,
    "arith.divsi": _quotients,
    "arith.remsi": _remainders,
    "arith.minsi": lambda a, b: Interval(min(a.least, b.least), min(a.most, b.most)),
    "arith.maxsi": lambda a, b: Interval(max(a.least, b.least), max(a.most, b.most)),
    "arith.select": lambda a, b: Interval(min(a.least, b.least), max(a.most, b.most)),
}


def overflowing_offsets(ttir: str) -> list[str]:
    """The products that overflow 32 bits on their way to a pointer."""
    values: dict[str, _Value] = {}
    found: dict[str, None] = {}
    programs = LARGEST
    for full in ttir.splitlines():
        line = _LOCATION.sub("", full)
        if kernel := _KERNEL.search(line):
            programs = MOST_SUMMING if kernel[1] in SUMMING else LARGEST
            for name in _ARGUMENT.findall(full):
                values[name] = _Value(Interval(0, programs if name == "%programs" else LARGEST), "", name, (), False)
        elif match := _LOOP.search(line):
            counter, first, end = (values.get(name) for name in match.groups())
            values[match[1]] = _Value(_counter(first, end), "", line, (), False)
        elif match := _OPERATION.match(line):
            name, operation, rest = match.groups()
            operands = tuple(values[each] for each in re.findall(r"%[\w#]+", rest) if each in values)
            values[name] = _evaluate(name, operation, rest, operands, programs)
            if operation == "tt.addptr" and operands:
                found.update(dict.fromkeys(_overflowed(operands[-1])))
    return list(found)


def _counter(first: _Value | None, end: _Value | None) -> Interval | None:
    if first is None or first.interval is None or end is None or end.interval is None:
        return None
    return Interval(first.interval.least, max(first.interval.least, end.interval.most - 1))


def _evaluate(name: str, operation: str, rest: str, operands: tuple[_Value, ...], programs: int) -> _Value:
    width = _RESULT.search(rest)
    interval = _remainder_of(operation, operands) or _interval(
        operation, rest, [value.interval for value in operands], programs
    )
    overflows = False
    if width is not None and width[1] == "32":
        if name.rstrip("_0123456789") in WITHIN_STEPS or (interval is None and operation == "arith.trunci"):
            interval = Interval(0, LARGEST)
        elif interval is not None:
            overflows = operation == "arith.muli" and interval.most >= 2**31
            interval = Interval(max(interval.least, LOWEST), min(interval.most, LARGEST))
    # What is loaded is not made of its pointer's offsets, nor what is chosen of those that were compared.
    operands = () if operation in ("tt.load", "arith.cmpi") else operands
    return _Value(interval, operation, f"{name} = {operation} {rest}", operands, overflows)


def _remainder_of(operation: str, operands: tuple[_Value, ...]) -> Interval | None:
    """What ``x - x // n * n`` can be, None for any other operation."""
    if operation != "arith.subi" or len(operands) != 2 or len(operands[1].operands) != 2:
        return None
    x, (quotient, n) = operands[0], operands[1].operands
    if quotient.operation != "arith.divsi" or len(quotient.operands) != 2:
        return None
    if quotient.operands[0] is not x or quotient.operands[1] is not n or x.interval is None or n.interval is None:
        return None
    return _remainders(x.interval, n.interval)


def _interval(operation: str, rest: str, operands: list[Interval | None], programs: int) -> Interval | None:
    if operation == "arith.constant":
        constant = _CONSTANT.match(rest)
        return None if constant is None else Interval(int(constant[1]), int(constant[1]))
    if operation in ("tt.get_program_id", "tt.get_num_programs"):
        return Interval(0, programs if rest.startswith("x") else MOST_HEADS)
    if operation == "tt.make_range":
        ends = _RANGE.search(rest)
        return None if ends is None else Interval(int(ends[2]), int(ends[1]) - 1)
    if operation == "tt.load":
        return Interval(LOWEST, LARGEST)
    if operation in _SAME:
        return operands[0] if operands else None
    if operation == "arith.trunci":
        return operands[0] if operands and operands[0] is not None and operands[0].most < 2**31 else None
    if operation in _ARITHMETIC and len(operands) >= 2:
        a, b = operands[-2:]
        return None if a is None or b is None else _ARITHMETIC[operation](a, b)
    return None


def _overflowed(value: _Value) -> list[str]:
    """The products that overflow among what a value is made of."""
    found, seen, left = [], set(), [value]
    while left:
        value = left.pop()
        if id(value) not in seen:
            seen.add(id(value))
            left += value.operands
            if value.overflows:
                found.append(value.line)
    return found
