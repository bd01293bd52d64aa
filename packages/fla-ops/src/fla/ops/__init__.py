"""The kernels: one folder per op family, each loaded when one of its names is first asked for."""

from typing import TYPE_CHECKING

#: Public name -> the module that defines it. The imports below say the same to type checkers.
_MENU = {
    "chunk_gla": "fla.ops.gla",
    "fused_chunk_gla": "fla.ops.gla",
    "fused_recurrent_gla": "fla.ops.gla",
    "parallel_attn": "fla.ops.attn",
}

__all__ = list(_MENU)

if TYPE_CHECKING:
    from fla.ops.attn import parallel_attn as parallel_attn
    from fla.ops.gla import (
        chunk_gla as chunk_gla,
        fused_chunk_gla as fused_chunk_gla,
        fused_recurrent_gla as fused_recurrent_gla,
    )
else:
    from fla.utils._menu import lazy_names

    __getattr__ = lazy_names(__name__, _MENU)


def __dir__() -> list[str]:
    return sorted(__all__)
