"""What every op and module owes to whoever keeps the state that it returns."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch

from fla.utils.spec import SequenceOp

#: A tensor with the sequences in its first dimension, or a tuple of such.
State = Any


class StateCall(NamedTuple):
    """A call of an op that starts from a state: its tensors and its options."""

    inputs: dict[str, torch.Tensor]
    options: dict[str, Any]


#: Rows, steps, and the boundaries of packed sequences.
LAYOUTS: Mapping[str, tuple[int, int, list[int] | None]] = {
    "rows": (2, 5, None),
    "one row": (1, 19, None),
    "one step": (2, 1, None),
    "packed": (1, 7, [0, 4, 4, 7]),
    "one packed": (1, 19, [0, 19]),
}


def state_calls(
    op: SequenceOp, device: torch.device, layouts: Iterable[str] = LAYOUTS, **options: Any
) -> Iterator[tuple[str, StateCall]]:
    """Calls of an op in the ways in which it returns a state, by title: of rows and packed, from zero and from a state.

    Args:
        op: the function, and what makes its inputs.
        device: of the inputs.
        layouts: among ``LAYOUTS``.
        **options: keyword arguments of all calls.
    """
    orders = [False, True] if "state_v_first" in inspect.signature(op.function).parameters else [None]
    for title in layouts:
        batch, time, ends = LAYOUTS[title]
        sizes = {"B": batch, "T": time, "H": 2, "HV": 4, "K": 8, "V": 12, "M": 6}
        inputs = op.make(sizes, torch.Generator().manual_seed(time), torch.float32)
        inputs = {name: x.to(device) for name, x in inputs.items()}
        for order in orders:
            chosen = dict(options, output_final_state=True)
            if ends is not None:
                chosen["cu_seqlens"] = torch.tensor(ends, device=device)
            if order is not None:
                chosen["state_v_first"] = order
            start = _copy(op.function(**inputs, **chosen)[1])
            suffix = "" if order is None else ", V first" if order else ", K first"
            yield f"{title}{suffix}", StateCall(inputs, chosen)
            yield f"{title}{suffix}, continued", StateCall(inputs, {**chosen, "initial_state": start})


def check_owned(states: State, others: Iterable[torch.Tensor] = ()) -> None:
    """Assert that states can be updated in place and kept for long.

    Each is contiguous, with memory of its own and of its own size: memory that it shared with another state would
    change with that one, and of a larger tensor it would keep all.

    Args:
        states: the tensors, in tuples of any depth.
        others: what they must share no memory with, as they must not with each other.
    """
    taken = {x.untyped_storage().data_ptr() for x in others}
    for state in tensors(states):
        assert state.is_contiguous(), f"strides {state.stride()} of {list(state.shape)}"
        storage = state.untyped_storage()
        assert storage.nbytes() == state.numel() * state.element_size(), f"{storage.nbytes()} bytes kept for {state}"
        assert storage.data_ptr() not in taken, "memory that an input or another state has too"
        taken.add(storage.data_ptr())


def check_call(function: Callable[..., Any], call: StateCall) -> None:
    """Call a function and hold the state that it returns to :func:`check_owned`."""
    inputs = [x for x in call.inputs.values() if isinstance(x, torch.Tensor)]
    _, state = function(**call.inputs, **call.options)
    check_owned(state, [*inputs, *tensors(call.options.get("initial_state"))])


def tensors(state: State) -> Iterator[torch.Tensor]:
    """The tensors of nested tuples, None left out."""
    if isinstance(state, torch.Tensor):
        yield state
    elif state is not None:
        for part in state:
            yield from tensors(part)


def _copy(state: State) -> State:
    return state.clone() if isinstance(state, torch.Tensor) else tuple(_copy(part) for part in state)
