"""The end of many mixers: a norm per head, and a gate made of the input."""

from __future__ import annotations

import torch

from fla.layers.base import Mixer, check_choice
from fla.modules import ACT2FN, FusedRMSNormGated, RMSNorm


class GatedOutput(Mixer):
    """A mixer whose heads are normalised and, with ``use_output_gate``, gated.

    The norm is ``g_norm_swish_gate`` where it takes the gate in the same step and ``g_norm`` elsewhere, the names
    that checkpoints know.
    """

    use_output_gate: bool
    gate_fn: str
    fuse_norm_and_gate: bool

    def add_output_norm(
        self,
        head_dim: int,
        use_output_gate: bool,
        gate_fn: str,
        fuse_norm: bool,
        elementwise_affine: bool | None,
        eps: float,
    ) -> None:
        """Make the norm; for ``__init__``.

        Args:
            head_dim: channels of a head.
            use_output_gate: whether there is a gate.
            gate_fn: name of its activation in ``fla.modules.ACT2FN``.
            fuse_norm: norm and gate in one step, where the activation is swish.
            elementwise_affine: learn a weight.
            eps: added to the mean square.

        Raises:
            ValueError: an unknown activation.
        """
        check_choice("gate_fn", gate_fn, ACT2FN)
        self.use_output_gate = use_output_gate
        self.gate_fn = gate_fn
        self.fuse_norm_and_gate = fuse_norm and use_output_gate and gate_fn in ("swish", "silu")
        affine = bool(elementwise_affine)
        if self.fuse_norm_and_gate:
            self.g_norm_swish_gate = FusedRMSNormGated(head_dim, elementwise_affine=affine, eps=eps)
        else:
            self.g_norm = RMSNorm(head_dim, elementwise_affine=affine, eps=eps)

    def norm_and_gate(self, o: torch.Tensor, gate: torch.Tensor | None) -> torch.Tensor:
        """Normalise each head of o ``[B, T, H, V]`` and gate it, both as ``[B, T, H * V]``.

        Args:
            o: ``[B, T, H, V]``.
            gate: before its activation, ``[B, T, H * V]``; None where there is none.
        """
        if gate is None:
            return self.g_norm(o).flatten(-2)  # type: ignore[no-any-return]
        if self.fuse_norm_and_gate:
            return self.g_norm_swish_gate(o, gate.view_as(o)).flatten(-2)  # type: ignore[no-any-return]
        return self.g_norm(o).flatten(-2) * ACT2FN[self.gate_fn](gate)  # type: ignore[no-any-return]
