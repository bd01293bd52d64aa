"""Heads of the delta rules: queries, keys and values, their decay, and a normalised output."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from fla.layers.base import MODES, Call, Mixer, check_choice, check_divisible
from fla.layers.cache import State
from fla.modules import ACT2FN, FusedRMSNormGated, RMSNorm, ShortConvolution

#: Activations of queries and keys. SiLU comes with their short convolution where there is one.
QK_ACTIVATIONS = ("silu", "relu", "elu", "identity")


class DeltaHeads(Mixer):
    """A mixer of the delta rule, whose value heads may share a query head, with optional convolutions and gate.

    The norm is ``o_norm`` with and without a gate, the name that checkpoints know.
    """

    def add_heads(
        self,
        mode: str,
        num_heads: int,
        num_v_heads: int | None,
        head_k_dim: int,
        head_v_dim: int,
        use_short_conv: bool,
        conv_size: int,
        conv_bias: bool,
        qk_activation: str = "silu",
        num_householder: int = 1,
    ) -> None:
        """Make the projections of queries, keys and values and their convolutions; for ``__init__``.

        Args:
            mode: one of ``MODES``.
            num_heads: query and key heads.
            num_v_heads: value heads, a multiple of ``num_heads``; as many unless given.
            head_k_dim: key channels of a head.
            head_v_dim: value channels of a head.
            use_short_conv: a short causal convolution on queries, keys and values.
            conv_size: its width.
            conv_bias: whether it has a bias.
            qk_activation: one of ``QK_ACTIVATIONS``; that of the values is SiLU.
            num_householder: keys and values of each head and token.

        Raises:
            ValueError: an unknown mode or activation, or sizes that do not fit.
        """
        check_choice("mode", mode, MODES)
        check_choice("qk_activation", qk_activation, QK_ACTIVATIONS)
        if num_householder < 1:
            raise ValueError(f"num_householder: expected at least 1, got {num_householder}")
        num_v_heads = num_heads if num_v_heads is None else num_v_heads
        check_divisible("num_v_heads", num_v_heads, "num_heads", num_heads)
        self.mode = mode
        self.num_heads, self.num_v_heads = num_heads, num_v_heads
        self.head_k_dim, self.head_v_dim = head_k_dim, head_v_dim
        self.key_dim, self.value_dim = num_heads * head_k_dim, num_v_heads * head_v_dim
        self.num_householder = num_householder
        self.qk_activation = qk_activation
        self.use_short_conv = use_short_conv

        widths = self.key_dim, self.key_dim * num_householder, self.value_dim * num_householder
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(self.hidden_size, width, bias=False) for width in widths)
        if use_short_conv:
            qk = "silu" if qk_activation == "silu" else None
            self.q_conv1d, self.k_conv1d, self.v_conv1d = (
                ShortConvolution(width, conv_size, bias=conv_bias, activation=activation)
                for width, activation in zip(widths, (qk, qk, "silu"))
            )

    def add_output(
        self, use_gate: bool, eps: float, activation: str = "swish", projection: nn.Module | None = None
    ) -> None:
        """Make the norm of each head, its gate and the output projection; for ``__init__``.

        Args:
            use_gate: gate the normalised heads by a projection of the input.
            eps: added to the mean square.
            activation: activation of the gate, ``"swish"`` (``"silu"``) or ``"sigmoid"``.
            projection: module that makes the gate from the input; linear unless given.

        Raises:
            ValueError: an unknown activation.
        """
        self.use_gate = use_gate
        if use_gate:
            self.g_proj = projection or nn.Linear(self.hidden_size, self.value_dim, bias=False)
            self.o_norm: nn.Module = FusedRMSNormGated(self.head_v_dim, eps=eps, activation=activation)
        else:
            self.o_norm = RMSNorm(self.head_v_dim, eps=eps)
        self.o_proj = nn.Linear(self.value_dim, self.hidden_size, bias=False)

    def add_parameters(self, values: Mapping[str, torch.Tensor]) -> None:
        """Make a parameter of each value, by name; for ``__init__``."""
        for name, value in values.items():
            self.register_parameter(name, nn.Parameter(value.to(torch.get_default_dtype())))

    def heads(self, x: torch.Tensor, call: Call) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, State | None]:
        """Queries ``[B, T, num_heads, K]``, keys and values, and the ``conv_state``.

        Keys are ``[B, T * num_householder, num_heads, K]``, values ``[B, T * num_householder, num_v_heads, V]``: those
        of a token one after the other.
        """
        convolutions = (self.q_conv1d, self.k_conv1d, self.v_conv1d) if self.use_short_conv else ()
        (q, k, v), conv_state = call.convolve(convolutions, (self.q_proj(x), self.k_proj(x), self.v_proj(x)))
        if not self.use_short_conv:
            v = F.silu(v)
        if not self.use_short_conv or self.qk_activation != "silu":
            q, k = _activate(q, self.qk_activation), _activate(k, self.qk_activation)
        q = q.unflatten(-1, (-1, self.head_k_dim))
        return q, self.sub_steps(k, self.head_k_dim), self.sub_steps(v, self.head_v_dim), conv_state

    def sub_steps(self, x: torch.Tensor, head_dim: int) -> torch.Tensor:
        """``[B, T, num_householder * H * D]`` as ``[B, T * num_householder, H, D]``."""
        return x.unflatten(-1, (self.num_householder, -1, head_dim)).flatten(1, 2)  # type: ignore[no-any-return]

    def output(self, o: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Normalise the heads o ``[B, T, H, V]``, gate them by x and project them to ``[B, T, D]``."""
        o = self.o_norm(o, self.g_proj(x).view_as(o)) if self.use_gate else self.o_norm(o)
        return self.o_proj(o.flatten(-2))  # type: ignore[no-any-return]


class DecayingDeltaHeads(DeltaHeads):
    r"""Heads whose state decays as Mamba-2's (arXiv 2405.21060) does.

    .. math:: g_t = -e^{A} \cdot \mathrm{softplus}(W_a x_t + dt)
    """

    undecayed: ClassVar[tuple[str, ...]] = ("A_log", "dt_bias")
    A_log: nn.Parameter
    dt_bias: nn.Parameter

    def add_decay(self) -> None:
        """Make the projection and the parameters of the decay of each value head; for ``__init__``."""
        self.a_proj = nn.Linear(self.hidden_size, self.num_v_heads, bias=False)
        self.add_parameters(initial_decay(self.num_v_heads, self.num_v_heads))

    def initial_values(self, num_hidden_layers: int) -> dict[str, torch.Tensor]:
        """Initial values of the decay by name, newly drawn."""
        return initial_decay(self.num_v_heads, self.num_v_heads) if hasattr(self, "A_log") else {}


def initial_decay(rates: int, steps: int) -> dict[str, torch.Tensor]:
    """``A_log`` and ``dt_bias``: rates uniform up to 16, and steps between 0.001 and 0.1, uniform in logarithm."""
    # A rate of 0 would have no logarithm.
    rate = 16 * (1 - torch.rand(rates, dtype=torch.float32))
    step = torch.exp(torch.empty(steps, dtype=torch.float32).uniform_(math.log(1e-3), math.log(1e-1)))
    return {"A_log": rate.log(), "dt_bias": step + torch.log(-torch.expm1(-step))}


def head_value_dim(head_dim: int, expand_v: float) -> int:
    """Value channels of a head.

    Raises:
        ValueError: ``head_dim * expand_v`` is no whole number above 0.
    """
    dim = int(head_dim * expand_v)
    if dim < 1 or not math.isclose(dim, head_dim * expand_v):
        raise ValueError(f"expand_v: expected head_dim * expand_v a whole number above 0, got {head_dim} * {expand_v}")
    return dim


def _activate(x: torch.Tensor, activation: str) -> torch.Tensor:
    if activation == "elu":
        return F.elu(x) + 1
    return x if activation == "identity" else ACT2FN[activation](x)
