"""Lower bounds of forget gates, learned for all layers together, as HGRN and HGRN2 have them."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from fla.models.base.modeling import FLAModel, Shared


class LowerBoundedModel(FLAModel):
    r"""A model whose layers forget the less, the higher they stand (arXiv 2311.04823).

    .. math:: b_l = \sum_{1 \le i \le l} \mathrm{softmax}_i(lower\_bounds)

    for layer l from 0, per channel: the first layer may forget everything. ``config.use_lower_bound`` turns it off.
    """

    undecayed: ClassVar[tuple[str, ...]] = ("lower_bounds",)

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        if config.use_lower_bound:
            self.lower_bounds = nn.Parameter(torch.zeros(config.num_hidden_layers, self.forget_dim()))

    def forget_dim(self) -> int:
        """Channels of a layer's forget gates."""
        raise NotImplementedError

    def shared_values(self) -> Shared:
        """The bounds of all layers ``[layers, D]``; each takes its own row."""
        if not self.config.use_lower_bound:
            return {}
        shares = self.lower_bounds.softmax(0, dtype=torch.float32)
        return {"lower_bounds": shares.cumsum(0) - shares[0]}

    def initial_values(self, num_hidden_layers: int) -> dict[str, torch.Tensor]:
        """Bounds that rise evenly."""
        # The base asks for them before there are any.
        return {"lower_bounds": torch.zeros_like(self.lower_bounds)} if hasattr(self, "lower_bounds") else {}
