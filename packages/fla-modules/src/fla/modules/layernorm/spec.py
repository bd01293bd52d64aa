"""What layer norm and RMS norm must get right, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from fla.modules._norm import cases
from fla.modules.layernorm.api import layer_norm, rms_norm
from fla.utils._spec import Spec

SPEC = Spec(
    name="layernorm",
    paper="1910.07467",
    functions=("layer_norm", "rms_norm"),
    backends=("triton", "torch"),
    cases=(*cases.cases(layer_norm, gated=False), *cases.cases(rms_norm, gated=False)),
    cost=partial(cases.cost, 2, 3),
    truth="torch",
    features=frozenset({"compile", "backward"}),
)


def aot_cases() -> Iterator[tuple[str, Callable[[], None]]]:
    """One call of every kernel for each kind of tile, to be compiled without a GPU."""
    return cases.aot_cases(rms_norm, layer_norm, gated=False)
