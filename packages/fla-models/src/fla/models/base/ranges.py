"""Ranges of the numbers in configs, whatever the model."""

from __future__ import annotations

from typing import Any

#: Sizes, counts, widths and factors: with 0 there would be nothing to compute.
_ABOVE_ZERO = frozenset(
    (
        *("vocab_size", "hidden_size", "num_hidden_layers", "hidden_ratio", "intermediate_size"),
        *("max_position_embeddings", "num_heads", "num_kv_heads", "num_v_heads", "head_dim", "value_dim"),
        *("expand", "expand_k", "expand_v", "expand_ratio", "feature_dim", "state_size", "num_slots"),
        *("conv_size", "conv_kernel", "window_size", "chunk_size", "n_groups", "num_householder"),
        *("gate_low_rank_dim", "proj_low_rank_dim", "decay_low_rank_dim", "a_low_rank_dim", "v_low_rank_dim"),
        *("q_lora_rank", "kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "qk_head_dim", "v_head_dim"),
        *("dt_rank", "dt_min", "dt_max", "time_step_rank", "time_step_min", "time_step_max"),
        *("gate_logit_normalizer", "rope_theta"),
    )
)
#: Terms that are added to a sum of squares, and bounds of a spread.
_NOT_BELOW_ZERO = frozenset(
    (
        *("norm_eps", "output_norm_eps", "qk_norm_eps", "bitlinear_norm_eps", "eps", "initializer_range"),
        *("conv_init", "dt_scale", "dt_init_floor", "time_step_scale", "time_step_floor"),
    )
)


def check_range(key: str, value: Any) -> None:
    """Check a number, or the numbers of a list; other values, such as None, are left to others.

    Raises:
        ValueError: a number that the key may not have.
    """
    for number in value if isinstance(value, list) else [value]:
        if isinstance(number, (int, float)):
            # The negation holds for what is not a number too.
            if key in _ABOVE_ZERO and not number > 0:
                raise ValueError(f"{key}: expected a number above 0, got {value}")
            if key in _NOT_BELOW_ZERO and not number >= 0:
                raise ValueError(f"{key}: expected a number of at least 0, got {value}")
