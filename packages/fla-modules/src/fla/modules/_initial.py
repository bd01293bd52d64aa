"""Initial values of parameters: a module says them, and whoever fills the parameters asks.

A module whose parameters start from anything but what its PyTorch base gives has a method ``initial_values``: names,
dotted for parameters and buffers of its children, and fresh values. What a parent says comes after what its children
say. Construction takes the values from there, and so does a model that starts from the meta device or from a file that
lacks some.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Protocol

import torch


class HasInitialValues(Protocol):
    """A module that says what its parameters start from."""

    def initial_values(self, num_hidden_layers: int) -> dict[str, torch.Tensor]:
        """Fresh values by name; they may depend on how high the module stands among so many layers."""


@torch.no_grad()
def set_initial_values(module: HasInitialValues, num_hidden_layers: int = 1) -> None:
    """Write the initial values of a module into its parameters and buffers."""
    for name, value in module.initial_values(num_hidden_layers).items():
        attrgetter(name)(module).copy_(value)
