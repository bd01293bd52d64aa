"""Cases that layer norm, RMS norm and group norm must get right, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from fla.modules._norm import cases
from fla.modules.layernorm.api import group_norm, layer_norm, rms_norm
from fla.utils.spec import Spec


def _grouped(num_groups: int, is_rms_norm: bool, shape: cases.Shape) -> cases.Shape:
    return shape._replace(options=(("num_groups", num_groups), ("is_rms_norm", is_rms_norm), *shape.options))


GROUP_SHAPES = {
    "one row": _grouped(2, False, cases.Shape((1,), 8, bias=True)),
    "one group": _grouped(1, True, cases.Shape((3,), 8)),
    "a channel a group": _grouped(5, True, cases.Shape((4,), 5, options=(("eps", 0.1),))),
    "odd sizes": _grouped(3, False, cases.Shape((2, 9), 51, bias=True, residual=True)),
    "strided": _grouped(4, True, cases.Shape((4, 6), 20, strided=True, float32_weight=True)),
    "many rows, no weight": _grouped(2, True, cases.Shape((67,), 34, weight=False, bias=True)),
    "32 heads of 64": _grouped(32, False, cases.Shape((2, 65), 2048, bias=True)),
    "more rows than programs": _grouped(4, False, cases.Shape((20_000,), 256, bias=True)),
    "train": _grouped(32, True, cases.Shape((8, 4096), 2048)),
}

SPEC = Spec(
    name="layernorm",
    paper="1910.07467",
    functions=("layer_norm", "rms_norm", "group_norm"),
    backends=("triton", "torch"),
    cases=(
        *cases.cases(layer_norm, gated=False),
        *cases.cases(rms_norm, gated=False),
        *cases.cases(group_norm, gated=False, shapes=GROUP_SHAPES),
    ),
    cost=partial(cases.cost, 2, 3),
    truth="torch",
    features=frozenset({"compile", "backward"}),
)


def aot_cases() -> Iterator[tuple[str, Callable[[], None]]]:
    """One call of every kernel for each kind of tile, to be compiled without a GPU."""
    yield from cases.aot_cases(rms_norm, layer_norm, gated=False)
    for dtype in (torch.bfloat16, torch.float32):
        shape = _grouped(16, False, cases.Shape((4,), 2048, bias=True, residual=True))
        title = f"group_norm {str(dtype).removeprefix('torch.')} 16 of 128"
        yield title, partial(cases.launch, title, shape, group_norm, False, dtype)
