"""Heads that remember in a bounded number of slots: their sizes, and the norm and gate of what they read."""

from __future__ import annotations

import torch
from torch import nn

from fla.layers._heads import GatedHeads
from fla.modules import FusedRMSNormGated, RMSNorm
from fla.modules.activations import swiglu


class SlotHeads(GatedHeads):
    """Query heads that share keys, values and slots as asked for, with a swish gate on the normalised output."""

    def add_slots(self, num_slots: int | None) -> int:
        """Set the slots of a head, ``head_k_dim`` unless given, and return how many all heads have; for ``__init__``.

        Raises:
            ValueError: fewer than one.
        """
        self.num_slots = self.head_k_dim if num_slots is None else num_slots
        if self.num_slots < 1:
            raise ValueError(f"num_slots: expected at least 1, got {num_slots}")
        return self.num_heads // self.num_kv_groups * self.num_slots

    def add_slot_output(
        self, channels: int, use_output_gate: bool, use_norm: bool, elementwise_affine: bool | None, eps: float
    ) -> None:
        """Make the gate, the norm and the output projection; for ``__init__``.

        Args:
            channels: channels that are normalised together.
            use_output_gate: whether there is a gate.
            use_norm: whether there is a norm.
            elementwise_affine: learn its weight.
            eps: added to its mean square.
        """
        self.use_output_gate, self.use_norm = use_output_gate, use_norm
        if use_output_gate:
            self.g_proj = nn.Linear(self.hidden_size, self.value_dim, bias=False)
        if use_norm:
            norm = FusedRMSNormGated if use_output_gate else RMSNorm
            affine = bool(elementwise_affine)
            self.g_norm = norm(channels, elementwise_affine=affine, eps=eps)  # type: ignore[assignment]  # by one name
        self.o_proj = nn.Linear(self.value_dim, self.hidden_size, bias=False)

    def slot_output(self, o: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Normalise o ``[..., channels]``, gate it by x ``[B, T, D]`` and project it to ``[B, T, D]``."""
        if self.use_output_gate:
            gate = self.g_proj(x).view_as(o)
            o = self.g_norm(o, gate) if self.use_norm else swiglu(gate, o)
        elif self.use_norm:
            o = self.g_norm(o)
        return self.o_proj(o.reshape(*x.shape[:-1], -1))  # type: ignore[no-any-return]
