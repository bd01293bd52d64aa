"""Linear attention, step by step: what every other implementation is held against."""

from __future__ import annotations

import torch

from fla.ops.gla.reference import gla_reference

#: S ``[N, H, K, V]``; with the normaliser ``(S, z)``, z ``[N, 1, H, K]``.
State = torch.Tensor | tuple[torch.Tensor, torch.Tensor]


def linear_attn_reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float | None = None,
    initial_state: State | None = None,
    output_final_state: bool = False,
    reverse: bool = False,
    normalize: bool = False,
    cu_seqlens: torch.Tensor | None = None,
) -> tuple[torch.Tensor, State | None]:
    r"""The recurrence :math:`S_t = S_{t-1} + k_t v_t^\top`, :math:`o_t = scale \cdot S_t^\top q_t`.

    With ``normalize`` the outputs are divided by :math:`scale \cdot q_t \cdot z_t + 10^{-10}`,
    :math:`z_t = z_{t-1} + k_t`. Runs in float64 on float64 inputs and in float32 on all others, on any device,
    differentiated by autograd. Arguments and results are those of
    :func:`fla.ops.linear_attn.fused_recurrent_linear_attn`.
    """
    o, total, state = naive_sums(q, k, v, scale, initial_state, output_final_state, normalize, reverse, cu_seqlens)
    return (o if total is None else o / (total + 1e-10)).to(v.dtype), state


def naive_recurrent_linear_attn(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float | None = None,
    initial_state: State | None = None,
    output_final_state: bool = False,
    normalize: bool = False,
    reverse: bool = False,
    cu_seqlens: torch.Tensor | None = None,
) -> tuple[torch.Tensor, State | None]:
    """:func:`linear_attn_reference` by its older name, where normalize comes before reverse."""
    return linear_attn_reference(
        q,
        k,
        v,
        scale=scale,
        initial_state=initial_state,
        output_final_state=output_final_state,
        reverse=reverse,
        normalize=normalize,
        cu_seqlens=cu_seqlens,
    )


def naive_sums(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float | None,
    initial_state: State | None,
    output_final_state: bool,
    normalize: bool,
    reverse: bool,
    cu_seqlens: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor | None, State | None]:
    """The weighted sums of values ``[B, T, H, V]``, of ones ``[B, T, H, 1]`` if ``normalize``, and the final state."""
    dtype = torch.promote_types(q.dtype, torch.float32)
    q_, k_, v_ = (x.to(dtype) for x in (q, k, v))

    def attend(values: torch.Tensor, start: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        return gla_reference(
            q_,
            k_,
            values,
            scale=scale,
            initial_state=start,
            output_final_state=output_final_state,
            reverse=reverse,
            cu_seqlens=cu_seqlens,
        )

    if not normalize:
        assert initial_state is None or isinstance(initial_state, torch.Tensor)
        o, state = attend(v_, initial_state)
        return o, None, state
    start, z = (None, None) if initial_state is None else initial_state
    o, state = attend(v_, start)
    total, column = attend(torch.ones_like(v_[..., :1]), None if z is None else z.permute(0, 2, 3, 1))
    return o, total, None if state is None or column is None else (state, column.permute(0, 3, 1, 2))
