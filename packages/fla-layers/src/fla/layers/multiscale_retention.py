"""Multi-scale retention (arXiv 2307.08621) as a layer."""

from __future__ import annotations

import torch

from fla.layers._heads import GatedHeads
from fla.layers._positions import rotate_from
from fla.layers.base import MODES, Call, repeat_heads
from fla.modules import RotaryEmbedding
from fla.ops.retention import chunk_retention, fused_recurrent_retention


class MultiScaleRetention(GatedHeads):
    r"""Retention in heads that forget at different, fixed rates (arXiv 2307.08621).

    .. math::
        S_t = (1 - 2^{-5-h})\, S_{t-1} + k_t v_t^\top, \qquad o_t = S_t^\top q_t / \sqrt{K}

    for the heads h = 0, 1, ..., with rotary positions on queries and keys; then RMS norm per head, the output gate
    and the output projection. Positions count the real tokens of each sequence. The state is kept in float32,
    ``[N, num_heads, K, V]``, and with it, where sequences differ in length, how many tokens each has seen.

    Args:
        mode: ``"chunk"`` or ``"fused_recurrent"``; ``"fused_chunk"`` and ``"parallel"`` are other names of the
            first. Short calls outside training take the recurrent form in any mode.
        hidden_size: channels in and out.
        expand_k: key channels of all heads over ``hidden_size``.
        expand_v: value channels of all heads over ``hidden_size``.
        num_heads: query heads.
        num_kv_heads: key and value heads, a divisor of ``num_heads``; as many unless given.
        feature_map: activation of queries and keys by its name in ``fla.modules.ACT2FN``; none unless given.
        use_short_conv: a short causal convolution and SiLU on queries, keys and values.
        conv_size: its width.
        conv_bias: whether it has a bias.
        use_output_gate: gate the output.
        gate_fn: activation of the output gate by its name in ``fla.modules.ACT2FN``.
        elementwise_affine: learn a weight for the norm of the output.
        norm_eps: added to its mean square.
        fuse_norm: norm and output gate in one step, where ``gate_fn`` is swish.
        layer_idx: the layer's place in the cache.

    Raises:
        ValueError: an unknown mode or activation, sizes that the heads do not divide, or key channels of a head that
            do not make pairs.
    """

    def __init__(
        self,
        mode: str = "chunk",
        hidden_size: int = 1024,
        expand_k: float = 1.0,
        expand_v: float = 2.0,
        num_heads: int = 8,
        num_kv_heads: int | None = None,
        feature_map: str | None = None,
        use_short_conv: bool = False,
        conv_size: int = 4,
        conv_bias: bool = False,
        use_output_gate: bool = True,
        gate_fn: str = "swish",
        elementwise_affine: bool | None = True,
        norm_eps: float = 1e-5,
        fuse_norm: bool = True,
        layer_idx: int | None = None,
    ) -> None:
        super().__init__(hidden_size, layer_idx)
        self.add_heads(
            mode,
            expand_k,
            expand_v,
            num_heads,
            num_kv_heads,
            feature_map,
            use_short_conv,
            conv_size,
            conv_bias,
            modes=(*MODES, "parallel"),
        )
        self.rotary = RotaryEmbedding(self.head_k_dim)
        self.add_output(use_output_gate, gate_fn, fuse_norm, elementwise_affine, norm_eps)

    def mix(self, x: torch.Tensor, call: Call, **shared: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """Queries, keys and values of x at their positions, the recurrence, and the gated output."""
        q, k, v, conv_state = self.heads(x, call)
        state, seen = call.read("recurrent_state") or (None, None)
        q, k, seen = rotate_from(seen, self.rotary, q, k, call)
        o, state = (fused_recurrent_retention if self.is_recurrent(call) else chunk_retention)(
            q,
            repeat_heads(k, self.num_kv_groups),
            repeat_heads(v, self.num_kv_groups),
            initial_state=state,
            output_final_state=call.writes,
            cu_seqlens=call.cu_seqlens,
        )
        call.write(recurrent_state=(state, seen), conv_state=conv_state)
        return (self.output(o, x),)
