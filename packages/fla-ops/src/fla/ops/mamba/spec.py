"""Cases that the selective scan must get right, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial, wraps
from typing import Any

import torch

from fla.ops._shared.cases import Shape, draw, launch, sequence_cases
from fla.ops.mamba.api import selective_scan
from fla.utils.spec import Cost, SequenceOp, Sizes, Spec

#: H is the number of groups, HV that of channels; K is the size of the state. Rates are logs, as Mamba learns them.
OVER_TIME = {"u": "B T HV", "delta": "B T HV", "B": "B T H K", "C": "B T H K"}
GATED = {**OVER_TIME, "z": "B T HV"}
PARAMETERS = {"rates": "HV K +", "D": "HV", "delta_bias": "HV"}
STATE = {"initial_state": "N HV K"}
WHOLE = {**GATED, **PARAMETERS, **STATE}
BARE = {**OVER_TIME, "delta": "B T HV +", "rates": "HV K +", **STATE}

STEPS = {"delta_softplus": False}
BARE_SHAPES = {
    "one step": Shape(3, 1, 1, 4, 1, HV=8, options=STEPS),
    "one span and a bit": Shape(2, 67, 1, 16, 1, HV=24, options=STEPS),
    "odd sizes, groups": Shape(1, 75, 3, 5, 1, HV=21, options=STEPS),
    "one state": Shape(2, 20, 1, 1, 1, HV=3, options=STEPS),
    "packed": Shape(1, 90, 1, 16, 1, HV=16, lengths=(1, 31, 0, 40, 18), options=STEPS),
    "fast rates": Shape(1, 70, 1, 8, 1, HV=16, options={**STEPS, "fastest": 50.0}),
}
WHOLE_SHAPES = {
    "every option": Shape(2, 40, 1, 16, 1, HV=12),
    "every option, groups, packed": Shape(1, 72, 2, 8, 1, HV=16, lengths=(5, 67)),
    "no gate": Shape(1, 30, 1, 16, 1, HV=8, without=("z",)),
    "no skip, no bias": Shape(1, 30, 1, 16, 1, HV=8, without=("D", "delta_bias")),
    "many channels": Shape(2, 150, 1, 16, 1, HV=300),
    "many channels, groups, packed": Shape(1, 200, 2, 16, 1, HV=320, lengths=(64, 0, 1, 128, 7)),
    "many states": Shape(1, 80, 1, 130, 1, HV=40),
    "long": Shape(1, 1500, 1, 16, 1, HV=64),
    "very long": Shape(2, 5000, 1, 16, 1, HV=1600),
}

Results = tuple[torch.Tensor, torch.Tensor | None]


def over_sequences(function: Callable[..., Any]) -> Callable[..., Results]:
    """The scan of tensors ``[B, T, ...]``, by the names that other families have; always returns a pair."""

    @wraps(function)
    def call(
        u: torch.Tensor,
        delta: torch.Tensor,
        B: torch.Tensor,
        C: torch.Tensor,
        rates: torch.Tensor | None = None,
        z: torch.Tensor | None = None,
        *,
        output_final_state: bool = False,
        delta_softplus: bool = True,
        fastest: float = 1.0,
        **operands: Any,
    ) -> Results:
        if rates is None:
            rates = torch.linspace(0.1, 1, B.shape[-1], dtype=u.dtype, device=u.device).expand(u.shape[-1], -1)
        results = function(
            u.transpose(1, 2),
            delta.transpose(1, 2),
            rates * -fastest,
            *(x.squeeze(2).transpose(1, 2) if x.shape[2] == 1 else x.permute(0, 2, 3, 1) for x in (B, C)),
            z=None if z is None else z.transpose(1, 2),
            delta_softplus=delta_softplus,
            return_last_state=output_final_state,
            **operands,
        )
        y, last_state = results if output_final_state else (results, None)
        return y.transpose(1, 2), last_state

    return call


scan = over_sequences(selective_scan)


def cost(sizes: Sizes, element: int) -> Cost:
    """Every input read once and every output written once; the backward pass also runs the forward one again."""
    tokens = sizes["B"] * sizes["T"]
    channels, groups, states = sizes["HV"], sizes["H"], sizes["K"]
    elements, small = tokens * channels, 2 * tokens * groups * states
    return Cost(
        bytes_fwd=(4 * elements + small) * element,
        bytes_bwd=(7 * elements + 2 * small) * element,
        flops_fwd=7 * elements * states,
        flops_bwd=22 * elements * states,
    )


SPEC = Spec(
    name="mamba",
    paper="2312.00752",
    functions=("selective_scan", "selective_state_update"),
    backends=("triton", "torch", "reference"),
    cases=(*sequence_cases(scan, BARE, BARE_SHAPES), *sequence_cases(scan, WHOLE, WHOLE_SHAPES)),
    cost=cost,
    sequence_ops=(SequenceOp(scan, partial(draw, GATED)),),
    features=frozenset({"state", "packed", "compile", "backward"}),
    timed_sizes={"H": 1, "HV": 4096, "K": 16, "V": 1},
)

#: Addresses, which every tile reads again once: two steps of 16 states, and what the next two read, fill the registers.
AOT_SPILL_ALLOWANCE = {"selective_scan_bwd_kernel": 256}


def aot_cases() -> Iterator[tuple[str, Callable[[], None]]]:
    """A call of each form, to be compiled without a GPU."""
    for dtype in (torch.bfloat16, torch.float32):
        for title, shape, operands in (
            ("every option", Shape(1, 70, 1, 16, 1, HV=128), WHOLE),
            ("bare", Shape(1, 70, 1, 16, 1, HV=100, options=STEPS), BARE),
            ("packed, groups", Shape(1, 70, 2, 16, 1, HV=256, lengths=(60, 10)), WHOLE),
            ("many states", Shape(1, 70, 1, 256, 1, HV=64), WHOLE),
        ):
            name = f"{dtype} {title}".removeprefix("torch.")
            yield f"selective_scan {name}", partial(launch, name, shape, scan, operands, dtype)
