"""Ways to rewrite a tensor that leave no trace in its version."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
import torch.utils.dlpack

#: Of a vector, or of the rows of a matrix.
Values: TypeAlias = Sequence[int] | Sequence[Sequence[int]]


class Rewritable(NamedTuple):
    """A tensor, and what gives it other values in place."""

    tensor: torch.Tensor
    rewrite: Callable[[Values], object]


def _inference_tensor(values: Values, device: torch.device) -> Rewritable:
    with torch.inference_mode():
        tensor = torch.tensor(values, device=device)

    def rewrite(values: Values) -> None:
        with torch.inference_mode():
            tensor.copy_(torch.tensor(values))

    return Rewritable(tensor, rewrite)


def _shared_memory(values: Values, device: torch.device) -> Rewritable:
    tensor = torch.tensor(values, device=device)
    # As NumPy's arrays do, it shares the memory and no version.
    other = torch.utils.dlpack.from_dlpack(tensor)
    return Rewritable(tensor, lambda values: other.copy_(torch.tensor(values)))


def _data(values: Values, device: torch.device) -> Rewritable:
    tensor = torch.tensor(values, device=device)
    return Rewritable(tensor, lambda values: tensor.data.copy_(torch.tensor(values)))


#: How it is rewritten -> makes the tensor from its first values and a device.
REWRITES: dict[str, Callable[[Values, torch.device], Rewritable]] = {
    "an inference tensor": _inference_tensor,
    "shared memory": _shared_memory,
    "data": _data,
}
