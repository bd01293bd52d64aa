r"""Gated linear attention in chunks where the values decay instead of the keys.

.. math:: S_t = S_{t-1}\, \mathrm{diag}(e^{g_t}) + k_t v_t^\top, \qquad o_t = scale \cdot S_t^\top q_t

The loss :math:`\sum_t do_t \cdot o_t` is that of gated linear attention with do as its queries, the decaying values as
its keys, the keys as its values and q as the gradient of its output. So o here is the gradient of the queries there,
and the gradients of q, k and v here are the output there and its gradients of the values and the keys.
"""

from __future__ import annotations

import torch

from fla.ops._engines.channel_decay.algorithm import value_decay_fwd_torch
from fla.ops._engines.channel_decay.ops import chunk_gla_bwd, chunk_gla_fwd
from fla.ops._shared.arguments import state_like, sum_dtype
from fla.utils.registration import fake_gradients, register_op

_LAUNCH = "fla.ops._engines.channel_decay.launch"


def _state_like(k: torch.Tensor, v: torch.Tensor, cu_seqlens: torch.Tensor | None) -> torch.Tensor:
    """The state has its values first: they are the keys of the engine."""
    return state_like(v, k, cu_seqlens)


def _fwd(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return o in the dtype of sums, and the final state."""
    raise NotImplementedError


def _fwd_fake(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cu_seqlens: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    return v.new_empty(v.shape, dtype=sum_dtype(q)), _state_like(k, v, cu_seqlens)


def _bwd(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    initial_state: torch.Tensor | None,
    do: torch.Tensor,
    dfinal_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    do = do.to(q.dtype)
    dq, _, scores = chunk_gla_fwd(do, v, k, g, None, initial_state, cu_seqlens, scale, backend, True)
    _, dv, dk, dg, _, dstate = chunk_gla_bwd(
        do, v, k, g, None, initial_state, scores, q, dfinal_state, cu_seqlens, scale, backend
    )
    return dq, dk, dv, dg, dstate


value_decay_fwd = register_op(
    "chunk_gla_value_decay_fwd",
    _fwd,
    _fwd_fake,
    algorithm=value_decay_fwd_torch,
    launch=f"{_LAUNCH}:value_decay_fwd_triton",
)
value_decay_bwd = register_op("chunk_gla_value_decay_bwd", _bwd, fake_gradients(_bwd, _state_like))
