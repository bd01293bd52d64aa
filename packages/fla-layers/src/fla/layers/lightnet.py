"""LightNet (arXiv 2405.21022) as a layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from fla.layers.base import MODES, Call, Mixer, check_choice, expanded_heads
from fla.modules import FusedRMSNormGated, ShortConvolution
from fla.ops.gla import chunk_gla, fused_recurrent_gla
from fla.ops.utils import normalised_writes


class LightNetAttention(Mixer):
    r"""LightNet (arXiv 2405.21022): linear attention whose keys are a softmax over all steps so far.

    .. math::
        z_t = \log \sum_{j \le t} e^{k_j}, \qquad
        S_t = \mathrm{diag}(e^{z_{t-1} - z_t})\, S_{t-1} + e^{k_t - z_t} v_t^\top, \qquad
        o_t = S_t^\top \mathrm{swish}(q_t) / \sqrt{K}

    per head; then an RMS norm over all channels, an output gate of low rank and the output projection. The state
    ``[N, num_heads, V, K]`` and z ``[N, num_heads, K]`` are kept in float32.

    Args:
        mode: ``"chunk"`` or ``"fused_recurrent"``; ``"fused_chunk"`` is another name of the first. Short calls
            outside training take the recurrent form in any mode.
        hidden_size: channels in and out.
        num_heads: heads; ``hidden_size / expand_ratio`` unless given.
        expand_ratio: key channels of a head; ``hidden_size / num_heads`` where it is None.
        use_short_conv: a short causal convolution on queries, keys and values.
        conv_size: its width.
        conv_bias: whether it has a bias.
        gate_low_rank_dim: rank of the projection to the output gate.
        elementwise_affine: learn a weight for the norm of the output.
        norm_eps: added to its mean square.
        layer_idx: the layer's place in the cache.

    Raises:
        ValueError: an unknown mode, neither ``num_heads`` nor ``expand_ratio``, or sizes that heads do not divide.
    """

    def __init__(
        self,
        mode: str = "chunk",
        hidden_size: int = 1024,
        num_heads: int | None = None,
        expand_ratio: int | None = 128,
        use_short_conv: bool = False,
        conv_size: int = 4,
        conv_bias: bool = False,
        gate_low_rank_dim: int = 128,
        elementwise_affine: bool | None = True,
        norm_eps: float = 1e-5,
        layer_idx: int | None = None,
    ) -> None:
        super().__init__(hidden_size, layer_idx)
        check_choice("mode", mode, MODES)
        self.mode = mode
        self.num_heads, self.head_f_dim = expanded_heads(hidden_size, num_heads, expand_ratio)
        self.head_i_dim = hidden_size // self.num_heads
        self.use_short_conv = use_short_conv
        forget_dim = self.num_heads * self.head_f_dim
        self.q_proj = nn.Linear(hidden_size, forget_dim, bias=False)
        self.k_proj = nn.Linear(hidden_size, forget_dim, bias=False)
        self.v_proj = nn.Linear(hidden_size, hidden_size, bias=False)
        self.g_proj = nn.Sequential(
            nn.Linear(hidden_size, gate_low_rank_dim, bias=False), nn.Linear(gate_low_rank_dim, hidden_size, bias=False)
        )
        if use_short_conv:
            self.q_conv1d = ShortConvolution(forget_dim, conv_size, bias=conv_bias, activation=None)
            self.k_conv1d = ShortConvolution(forget_dim, conv_size, bias=conv_bias, activation=None)
            self.v_conv1d = ShortConvolution(hidden_size, conv_size, bias=conv_bias, activation=None)
        self.g_norm = FusedRMSNormGated(hidden_size, elementwise_affine=bool(elementwise_affine), eps=norm_eps)
        self.o_proj = nn.Linear(hidden_size, hidden_size, bias=False)

    def mix(self, x: torch.Tensor, call: Call, **shared: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """Queries, normalised keys and values of x, the recurrence, and the gated output."""
        convolutions = (self.q_conv1d, self.k_conv1d, self.v_conv1d) if self.use_short_conv else ()
        (q, k, v), conv_state = call.convolve(convolutions, (self.q_proj(x), self.k_proj(x), self.v_proj(x)))
        q, k = F.silu(q).unflatten(-1, (-1, self.head_f_dim)), k.unflatten(-1, (-1, self.head_f_dim))
        state, z = call.read("recurrent_state") or (None, None)
        k, decay, z = normalised_writes(k, z, call.cu_seqlens, dtype=q.dtype)
        o, state = (fused_recurrent_gla if self.is_recurrent(call) else chunk_gla)(
            q,
            k,
            v.unflatten(-1, (-1, self.head_i_dim)),
            decay,
            initial_state=state,
            output_final_state=call.writes,
            state_v_first=True,
            cu_seqlens=call.cu_seqlens,
        )
        call.write(recurrent_state=(state, z), conv_state=conv_state)
        return (self.o_proj(self.g_norm(o.flatten(-2), self.g_proj(x))),)
