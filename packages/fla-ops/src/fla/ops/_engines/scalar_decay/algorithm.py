r"""Linear attention with scalar decay in chunks, in plain PyTorch matmuls.

A chunk of C steps reads the state S at its start and adds to it:

    o_i = e^{pre_i} q_i S + sum_{j <= i} A_ij v_j        S' = e^{total} S + sum_j e^{suf_j} k_j v_j^T

where pre_i sums the log decays of the chunk up to and with step i, suf_j those after step j, total all of them, and
A_ij = q_i.k_j e^{between_ij} with the decays after j up to and with i. Each is a sum of decays, found by a product
with a 0/1 matrix, and never the difference of two sums.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from fla.ops._shared.arguments import sum_dtype, ungroup
from fla.ops._shared.causality import keeps_causality
from fla.ops._shared.chunks import ChunkLayout

CHUNK_SIZE = 64


class _Factors(NamedTuple):
    """Decay factors, all between 0 and 1; None where nothing decays."""

    between: torch.Tensor | None
    """``[M or 1, HV, C, C]``, for j <= i."""
    pre: torch.Tensor | None
    """``[M, HV, C, 1]``"""
    suf: torch.Tensor | None
    """``[M, HV, C, 1]``"""

    @property
    def total(self) -> torch.Tensor | None:
        """``[M, HV, 1]``"""
        return None if self.pre is None else self.pre[..., -1, :]


@keeps_causality(("k", "v"), ("g",))
def chunk_simple_gla_fwd_torch(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor | None,
    g_gamma: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs ``[B, T, HV, V]`` and final states ``[N, HV, K, V]``."""
    layout = ChunkLayout(q.shape[0], q.shape[1], CHUNK_SIZE, cu_seqlens)
    q_, k_, v_ = _split(layout, q, k, v)
    q_ = q_ * scale
    factors = _factors(layout, g, g_gamma, v)
    scores = _times(q_ @ k_.transpose(-1, -2), factors.between).tril_()
    o = scores @ v_
    written = _times(k_, factors.suf).transpose(-1, -2) @ v_
    states, final = layout.scan(written, factors.total, initial_state)
    o += _times(q_, factors.pre) @ states
    return layout.join(o, v.dtype), final


def chunk_simple_gla_bwd_torch(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor | None,
    g_gamma: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    do: torch.Tensor,
    dfinal_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None, None, torch.Tensor]:
    """Gradients of q, k, v, g, none of ``g_gamma``, and those of the initial states."""
    layout = ChunkLayout(q.shape[0], q.shape[1], CHUNK_SIZE, cu_seqlens)
    q_, k_, v_ = _split(layout, q, k, v)
    q_ = q_ * scale
    do_ = layout.split(do, v_.dtype)
    factors = _factors(layout, g, g_gamma, v)

    k_state = _times(k_, factors.suf)
    states, _ = layout.scan(k_state.transpose(-1, -2) @ v_, factors.total, initial_state)
    dread = _times(q_, factors.pre).transpose(-1, -2) @ do_
    dstates, dinitial_state = layout.scan(dread, factors.total, dfinal_state, reverse=True)

    scores = _times(q_ @ k_.transpose(-1, -2), factors.between).tril_()
    dscores = _times(do_ @ v_.transpose(-1, -2), factors.between).tril_()
    dv = scores.transpose(-1, -2) @ do_ + k_state @ dstates
    dq_state = _times(do_ @ states.transpose(-1, -2), factors.pre)
    dk_state = _times(v_ @ dstates.transpose(-1, -2), factors.suf)
    dq = (dscores @ k_).add_(dq_state)
    dk = (dscores.transpose(-1, -2) @ q_).add_(dk_state)
    dg = None
    if g is not None:
        assert factors.total is not None
        dtotal = factors.total * (states * dstates).sum((-1, -2)).unsqueeze(-1)
        pairs = dscores.mul_(q_ @ k_.transpose(-1, -2))
        dg = _decay_gradient(pairs, (dq_state * q_).sum(-1), (dk_state * k_).sum(-1), dtotal)
        dg = layout.join(dg.unsqueeze(-1), g.dtype).squeeze(-1)
    dq, dk = (ungroup(layout.join(d, v_.dtype), x) for d, x in ((dq.mul_(scale), q), (dk, k)))
    return dq, dk, layout.join(dv, v.dtype), dg, None, dinitial_state


def _split(
    layout: ChunkLayout, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The operands in chunks ``[M, HV, C, D]``, queries and keys repeated for the value heads that share them."""
    q_, k_, v_ = (layout.split(x, sum_dtype(q)) for x in (q, k, v))
    groups = v.shape[2] // q.shape[2]
    if groups > 1:
        q_, k_ = q_.repeat_interleave(groups, 1), k_.repeat_interleave(groups, 1)
    return q_, k_, v_


def _times(x: torch.Tensor, factor: torch.Tensor | None) -> torch.Tensor:
    return x if factor is None else x * factor


def _factors(layout: ChunkLayout, g: torch.Tensor | None, g_gamma: torch.Tensor | None, v: torch.Tensor) -> _Factors:
    if g is None and g_gamma is None:
        return _Factors(None, None, None)
    dtype = sum_dtype(v)
    steps = g if g is not None else g_gamma.expand(v.shape[:3])  # type: ignore[union-attr]
    # Decays below the lowest are as good as a reset; a product of 0 and -inf in a sum would be NaN.
    g_ = layout.split(steps.unsqueeze(-1), dtype).clamp_(min=-1.0e4)
    pre = g_.cumsum(-2)
    suf = torch.cat([g_[..., 1:, :], torch.zeros_like(g_[..., :1, :])], -2).flip(-2).cumsum(-2).flip(-2)
    step = torch.arange(CHUNK_SIZE, device=v.device)
    if g is None:
        assert g_gamma is not None
        distance = (step[:, None] - step[None, :]).clamp(min=0)
        between = g_gamma.to(dtype)[:, None, None] * distance
        between = between.unsqueeze(0)
    else:
        after = (step[:, None] > step[None, :]).to(dtype)
        up_to = (step[None, :] <= step[:, None]).to(dtype)
        between = up_to @ (g_ * after)
    return _Factors(between.exp_(), pre.exp_(), suf.exp_())


def _decay_gradient(pairs: torch.Tensor, dpre: torch.Tensor, dsuf: torch.Tensor, dtotal: torch.Tensor) -> torch.Tensor:
    """Gradient of the log decays ``[M, HV, C]``.

    Args:
        pairs: gradient of ``between`` ``[M, HV, C, C]``. Step t lies between j and i where j < t <= i.
        dpre: ``[M, HV, C]``. Step t is in pre_i where t <= i.
        dsuf: ``[M, HV, C]``. Step t is in suf_j where j < t.
        dtotal: ``[M, HV, 1]``.
    """
    step = torch.arange(CHUNK_SIZE, device=pairs.device)
    from_t_on = (step[None, :] >= step[:, None]).to(pairs.dtype)
    across = (from_t_on @ pairs).tril_(-1).sum(-1)
    before = (from_t_on.T - torch.eye(CHUNK_SIZE, dtype=pairs.dtype, device=pairs.device)) @ dsuf.unsqueeze(-1)
    after = from_t_on @ dpre.unsqueeze(-1)
    return across + (before + after).squeeze(-1) + dtotal
