"""Find, in what Triton makes of a kernel for Hopper, operands that are overwritten while a product still reads them.

In a pipelined loop a product whose sum is carried to the next iteration is not waited for. Where one of its operands is
also used otherwise, Triton (3.6, 3.7) gives that operand one buffer, and the next copy into it races with the product.
The remedy is to place such a product before another whose result is used at once: that one is waited for, and with it
all before it.
"""

from __future__ import annotations

import re

_ALLOCATION = re.compile(r"(%[\w#.]+)(?::\d+)? = ttg\.local_alloc : \(\) -> !ttg\.memdesc<(\d+)x")
_VIEW = re.compile(r"(%[\w#.]+) = ttg\.memdesc_\w+ (%[\w#.]+)")
_PRODUCT = re.compile(r"= ttng\.warp_group_dot (%[\w#.]+), (%[\w#.]+)")
_WAIT = re.compile(r"ttng\.warp_group_dot_wait .*pendings = (\d+)")
_COPY = re.compile(r"ttg\.async_copy_global_to_local %[\w#.]+, (%[\w#.]+)")


def overwritten_operands(ttgir: str) -> list[str]:
    """The buffers that a copy overwrites before a product that reads them has been waited for, by their names."""
    single: set[str] = set()
    buffers: dict[str, str] = {}
    pending: list[set[str]] = []
    found: list[str] = []
    for line in ttgir.splitlines():
        if "scf.for" in line:
            pending = []
        elif match := _ALLOCATION.search(line):
            buffers[match[1]] = match[1]
            if match[2] == "1":
                single.add(match[1])
        elif match := _VIEW.search(line):
            if match[2] in buffers:
                buffers[match[1]] = buffers[match[2]]
        elif match := _PRODUCT.search(line):
            pending.append({buffers[name] for name in match.groups() if name in buffers})
        elif match := _WAIT.search(line):
            pending = pending[len(pending) - int(match[1]) :] if int(match[1]) else []
        elif match := _COPY.search(line):
            name = buffers.get(match[1], "")
            if name in single and any(name in read for read in pending) and name not in found:
                found.append(name)
    return found
