"""The public names: each once, for Python and for type checkers alike."""

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

__all__: list[str]
