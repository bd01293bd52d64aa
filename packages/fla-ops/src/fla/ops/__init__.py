"""The kernels: one folder per op family, each loaded when one of its names is first asked for."""

from typing import TYPE_CHECKING

#: Public name -> the module that defines it. The imports below say the same to type checkers.
_MENU = {
    "chunk_abc": "fla.ops.abc",
    "fused_recurrent_abc": "fla.ops.abc",
    "fused_chunk_based": "fla.ops.based",
    "parallel_based": "fla.ops.based",
    "chunk_comba": "fla.ops.comba",
    "fused_recurrent_comba": "fla.ops.comba",
    "chunk_delta_rule": "fla.ops.delta_rule",
    "fused_chunk_delta_rule": "fla.ops.delta_rule",
    "fused_recurrent_delta_rule": "fla.ops.delta_rule",
    "parallel_delta_rule": "fla.ops.delta_rule",
    "chunk_gated_delta_product": "fla.ops.gated_delta_product",
    "fused_recurrent_gated_delta_product": "fla.ops.gated_delta_product",
    "chunk_gated_delta_rule": "fla.ops.gated_delta_rule",
    "chunk_gdn": "fla.ops.gated_delta_rule",
    "fused_gdn_gate": "fla.ops.gated_delta_rule",
    "fused_recurrent_gated_delta_rule": "fla.ops.gated_delta_rule",
    "fused_recurrent_gdn": "fla.ops.gated_delta_rule",
    "chunk_dplr_delta_rule": "fla.ops.generalized_delta_rule",
    "chunk_iplr_delta_rule": "fla.ops.generalized_delta_rule",
    "fused_recurrent_dplr_delta_rule": "fla.ops.generalized_delta_rule",
    "fused_recurrent_iplr_delta_rule": "fla.ops.generalized_delta_rule",
    "chunk_gla": "fla.ops.gla",
    "fused_chunk_gla": "fla.ops.gla",
    "fused_recurrent_gla": "fla.ops.gla",
    "chunk_gsa": "fla.ops.gsa",
    "fused_recurrent_gsa": "fla.ops.gsa",
    "chunk_hgrn": "fla.ops.hgrn",
    "fused_recurrent_hgrn": "fla.ops.hgrn",
    "chunk_kda": "fla.ops.kda",
    "fused_kda_gate": "fla.ops.kda",
    "fused_recurrent_kda": "fla.ops.kda",
    "chunk_lightning_attn": "fla.ops.lightning_attn",
    "fused_recurrent_lightning_attn": "fla.ops.lightning_attn",
    "chunk_linear_attn": "fla.ops.linear_attn",
    "fused_chunk_linear_attn": "fla.ops.linear_attn",
    "fused_recurrent_linear_attn": "fla.ops.linear_attn",
    "selective_scan": "fla.ops.mamba",
    "selective_scan_fn": "fla.ops.mamba",
    "selective_state_update": "fla.ops.mamba",
    "parallel_rebased": "fla.ops.rebased",
    "chunk_retention": "fla.ops.retention",
    "fused_chunk_retention": "fla.ops.retention",
    "fused_recurrent_retention": "fla.ops.retention",
    "parallel_retention": "fla.ops.retention",
    "chunk_rwkv6": "fla.ops.rwkv6",
    "fused_recurrent_rwkv6": "fla.ops.rwkv6",
    "chunk_rwkv7": "fla.ops.rwkv7",
    "fused_mul_recurrent_rwkv7": "fla.ops.rwkv7",
    "fused_recurrent_rwkv7": "fla.ops.rwkv7",
    "chunk_simple_gla": "fla.ops.simple_gla",
    "fused_chunk_simple_gla": "fla.ops.simple_gla",
    "fused_recurrent_simple_gla": "fla.ops.simple_gla",
    "parallel_simple_gla": "fla.ops.simple_gla",
    "fused_recurrent_ssd": "fla.ops.ssd",
    "mamba_chunk_scan": "fla.ops.ssd",
    "mamba_chunk_scan_combined": "fla.ops.ssd",
    "parallel_attn": "fla.ops.attn",
}

__all__ = list(_MENU)

if TYPE_CHECKING:
    from fla.ops.abc import chunk_abc as chunk_abc, fused_recurrent_abc as fused_recurrent_abc
    from fla.ops.attn import parallel_attn as parallel_attn
    from fla.ops.based import fused_chunk_based as fused_chunk_based, parallel_based as parallel_based
    from fla.ops.comba import chunk_comba as chunk_comba, fused_recurrent_comba as fused_recurrent_comba
    from fla.ops.delta_rule import (
        chunk_delta_rule as chunk_delta_rule,
        fused_chunk_delta_rule as fused_chunk_delta_rule,
        fused_recurrent_delta_rule as fused_recurrent_delta_rule,
        parallel_delta_rule as parallel_delta_rule,
    )
    from fla.ops.gated_delta_product import (
        chunk_gated_delta_product as chunk_gated_delta_product,
        fused_recurrent_gated_delta_product as fused_recurrent_gated_delta_product,
    )
    from fla.ops.gated_delta_rule import (
        chunk_gated_delta_rule as chunk_gated_delta_rule,
        chunk_gdn as chunk_gdn,
        fused_gdn_gate as fused_gdn_gate,
        fused_recurrent_gated_delta_rule as fused_recurrent_gated_delta_rule,
        fused_recurrent_gdn as fused_recurrent_gdn,
    )
    from fla.ops.generalized_delta_rule import (
        chunk_dplr_delta_rule as chunk_dplr_delta_rule,
        chunk_iplr_delta_rule as chunk_iplr_delta_rule,
        fused_recurrent_dplr_delta_rule as fused_recurrent_dplr_delta_rule,
        fused_recurrent_iplr_delta_rule as fused_recurrent_iplr_delta_rule,
    )
    from fla.ops.gla import (
        chunk_gla as chunk_gla,
        fused_chunk_gla as fused_chunk_gla,
        fused_recurrent_gla as fused_recurrent_gla,
    )
    from fla.ops.gsa import chunk_gsa as chunk_gsa, fused_recurrent_gsa as fused_recurrent_gsa
    from fla.ops.hgrn import chunk_hgrn as chunk_hgrn, fused_recurrent_hgrn as fused_recurrent_hgrn
    from fla.ops.kda import (
        chunk_kda as chunk_kda,
        fused_kda_gate as fused_kda_gate,
        fused_recurrent_kda as fused_recurrent_kda,
    )
    from fla.ops.lightning_attn import (
        chunk_lightning_attn as chunk_lightning_attn,
        fused_recurrent_lightning_attn as fused_recurrent_lightning_attn,
    )
    from fla.ops.linear_attn import (
        chunk_linear_attn as chunk_linear_attn,
        fused_chunk_linear_attn as fused_chunk_linear_attn,
        fused_recurrent_linear_attn as fused_recurrent_linear_attn,
    )
    from fla.ops.mamba import (
        selective_scan as selective_scan,
        selective_scan_fn as selective_scan_fn,
        selective_state_update as selective_state_update,
    )
    from fla.ops.rebased import parallel_rebased as parallel_rebased
    from fla.ops.retention import (
        chunk_retention as chunk_retention,
        fused_chunk_retention as fused_chunk_retention,
        fused_recurrent_retention as fused_recurrent_retention,
        parallel_retention as parallel_retention,
    )
    from fla.ops.rwkv6 import chunk_rwkv6 as chunk_rwkv6, fused_recurrent_rwkv6 as fused_recurrent_rwkv6
    from fla.ops.rwkv7 import (
        chunk_rwkv7 as chunk_rwkv7,
        fused_mul_recurrent_rwkv7 as fused_mul_recurrent_rwkv7,
        fused_recurrent_rwkv7 as fused_recurrent_rwkv7,
    )
    from fla.ops.simple_gla import (
        chunk_simple_gla as chunk_simple_gla,
        fused_chunk_simple_gla as fused_chunk_simple_gla,
        fused_recurrent_simple_gla as fused_recurrent_simple_gla,
        parallel_simple_gla as parallel_simple_gla,
    )
    from fla.ops.ssd import (
        fused_recurrent_ssd as fused_recurrent_ssd,
        mamba_chunk_scan as mamba_chunk_scan,
        mamba_chunk_scan_combined as mamba_chunk_scan_combined,
    )
else:
    from fla.utils.menu import lazy_names

    __getattr__ = lazy_names(__name__, _MENU)


def __dir__() -> list[str]:
    return sorted(__all__)
