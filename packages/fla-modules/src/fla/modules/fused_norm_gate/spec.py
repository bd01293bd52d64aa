"""Cases that the gated norms must get right, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from fla.modules._norm import cases
from fla.modules.fused_norm_gate.api import layer_norm_gated, rms_norm_gated
from fla.utils.spec import Spec

SPEC = Spec(
    name="fused_norm_gate",
    paper="1910.07467",
    functions=("layer_norm_gated", "rms_norm_gated"),
    backends=("triton", "torch"),
    cases=(
        *cases.cases(layer_norm_gated, True, (("activation", "sigmoid"),), " by sigmoid"),
        *cases.cases(rms_norm_gated, True),
    ),
    cost=partial(cases.cost, 3, 5),
    truth="torch",
    features=frozenset({"compile", "backward"}),
)


def aot_cases() -> Iterator[tuple[str, Callable[[], None]]]:
    """One call of every kernel for each kind of tile, to be compiled without a GPU."""
    return cases.aot_cases(rms_norm_gated, layer_norm_gated, gated=True)
