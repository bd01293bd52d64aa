"""The public functions of gated slot attention: what they compute and accept."""

from __future__ import annotations

import torch

from fla.ops._engines.channel_decay.ops import run_chunk_gla
from fla.ops._engines.decay_steps.ops import run_recurrent_gla
from fla.ops._engines.slots.ops import run_slot_weights
from fla.ops._shared.arguments import flip_time, sum_dtype
from fla.ops.gsa.reference import gsa_reference
from fla.ops.utils import normalised_writes
from fla.utils.backends import choose_backend
from fla.utils.validation import (
    bind_shapes,
    check_cu_seqlens,
    check_floating,
    check_not_empty,
    check_same_device,
    check_same_dtype,
    count_sequences,
    remembered,
    resolve_boundaries,
)

State = tuple[torch.Tensor, ...]


def chunk_gsa(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    s: torch.Tensor,
    g: torch.Tensor | None = None,
    scale: float | None = None,
    initial_state: State | None = None,
    output_final_state: bool = False,
    checkpoint_level: int = 2,
    cu_seqlens: torch.Tensor | None = None,
    cu_seqlens_cpu: torch.Tensor | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, State | None]:
    r"""Gated slot attention over whole sequences, chunk by chunk (arXiv 2409.07146).

    .. math::
        H^k_t = H^k_{t-1} \mathrm{diag}(e^{g_t}) + k_t s_t^\top, \qquad
        H^v_t = \mathrm{diag}(e^{g_t}) H^v_{t-1} + s_t v_t^\top, \qquad
        o_t = {H^v_t}^\top \mathrm{softmax}(scale \cdot {H^k_t}^\top q_t)

    Without g the writes are normalised instead, which is attention with bounded memory (ABC, arXiv 2110.02488): with
    :math:`z_t = \log \sum_{j \le t} e^{s_j}` the decay is :math:`z_{t-1} - z_t` and the write :math:`e^{s_t - z_t}`.

    States, scores, decays and every sum are accumulated in float32 (float64 for float64 inputs); exponents are always
    sums of decays, so decays of any strength are safe. Differentiable once in every floating argument.

    Args:
        q: queries ``[B, T, HQ, K]``, HQ a multiple of H; float32, bfloat16, float16, or float64 on the torch backend.
        k: keys ``[B, T, H, K]``.
        v: values ``[B, T, H, V]``.
        s: what is written to each of M slots ``[B, T, H, M]``.
        g: log decay of each slot ``[B, T, H, M]``, natural logarithm, at most 0; any floating dtype.
        scale: factor on the scores, ``K ** -0.5`` unless given.
        initial_state: ``(Hk [N, H, K, M], Hv [N, H, M, V])``, and without g also ``z [N, H, M]``; N is B, or the number
            of packed sequences.
        output_final_state: also return the states after the last step.
        checkpoint_level: accepted for the sake of existing programs; the memory that is kept does not depend on it.
        cu_seqlens: boundaries of packed sequences ``[N + 1]``, int32 or int64, from 0 to T; B must be 1.
        cu_seqlens_cpu: the same on the CPU. Alone it is used; beside ``cu_seqlens`` it must agree, which is checked on
            the CPU. On a GPU ``cu_seqlens`` decides; there only ``FLA_DEBUG=1`` compares, which waits for the device.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        ``(o, final_state)``: o ``[B, T, HQ, V]`` in the dtype of v; the states in float32, None unless asked for.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: an argument of the wrong shape, on another device, or a backend that cannot run here.

    Example:
        >>> q, k, v = torch.randn(3, 1, 64, 2, 32)
        >>> s = torch.randn(1, 64, 2, 16)
        >>> g = F.logsigmoid(torch.randn(1, 64, 2, 16))
        >>> o, _ = chunk_gsa(q, k, v, s, g)
        >>> o.shape
        torch.Size([1, 64, 2, 32])
    """
    cu_seqlens = resolve_boundaries(q, cu_seqlens, cu_seqlens_cpu)
    scale = _check(q, k, v, s, g, scale, initial_state, cu_seqlens)
    chosen = choose_backend(q, backend)
    if chosen == "reference":
        return gsa_reference(
            q,
            k,
            v,
            s=s,
            g=g,
            scale=scale,
            initial_state=initial_state,
            output_final_state=output_final_state,
            cu_seqlens=cu_seqlens,
        )
    return _run(q, k, v, s, g, scale, initial_state, output_final_state, cu_seqlens, chosen, recurrent=False)


def fused_recurrent_gsa(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    s: torch.Tensor,
    g: torch.Tensor | None = None,
    scale: float | None = None,
    initial_state: State | None = None,
    output_final_state: bool = False,
    reverse: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, State | None]:
    r"""Gated slot attention, one step after the other: for decoding and short sequences (arXiv 2409.07146).

    .. math::
        H^k_t = H^k_{t-1} \mathrm{diag}(e^{g_t}) + k_t s_t^\top, \qquad
        H^v_t = \mathrm{diag}(e^{g_t}) H^v_{t-1} + s_t v_t^\top, \qquad
        o_t = {H^v_t}^\top \mathrm{softmax}(scale \cdot {H^k_t}^\top q_t)

    Arguments, precision, results and errors are those of :func:`chunk_gsa`, and in addition:

    Args:
        q: queries ``[B, T, HQ, K]``.
        k: keys ``[B, T, H, K]``.
        v: values ``[B, T, H, V]``.
        s: writes ``[B, T, H, M]``.
        g: log decay of each slot ``[B, T, H, M]``.
        scale: factor on the scores, ``K ** -0.5`` unless given.
        initial_state: ``(Hk, Hv)``, and without g also z.
        output_final_state: also return the last states.
        reverse: run each sequence from its end to its start.
        cu_seqlens: boundaries of packed sequences ``[N + 1]``; B must be 1.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        ``(o, final_state)``: o ``[B, T, HQ, V]`` in the dtype of v; the states in float32, None unless asked for.

    Example:
        >>> q, k, v = torch.randn(3, 1, 64, 2, 32)
        >>> s = torch.randn(1, 64, 2, 16)
        >>> g = F.logsigmoid(torch.randn(1, 64, 2, 16))
        >>> o, _ = fused_recurrent_gsa(q, k, v, s, g)
        >>> o.shape
        torch.Size([1, 64, 2, 32])
    """
    scale = _check(q, k, v, s, g, scale, initial_state, cu_seqlens)
    chosen = choose_backend(q, backend)
    if chosen == "reference":
        return gsa_reference(
            q,
            k,
            v,
            s=s,
            g=g,
            scale=scale,
            initial_state=initial_state,
            output_final_state=output_final_state,
            reverse=reverse,
            cu_seqlens=cu_seqlens,
        )
    if not reverse:
        return _run(q, k, v, s, g, scale, initial_state, output_final_state, cu_seqlens, chosen, recurrent=True)
    packed = cu_seqlens is not None
    (q, k, v, s, g), cu_seqlens = flip_time((q, k, v, s, g), cu_seqlens)  # type: ignore[assignment]
    if packed and initial_state is not None:
        initial_state = tuple(x.flip(0) for x in initial_state)
    o, state = _run(q, k, v, s, g, scale, initial_state, output_final_state, cu_seqlens, chosen, recurrent=True)
    if packed and state is not None:
        state = tuple(x.flip(0) for x in state)
    return o.flip(1), state


def _run(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    s: torch.Tensor,
    g: torch.Tensor | None,
    scale: float,
    initial_state: State | None,
    output_final_state: bool,
    cu_seqlens: torch.Tensor | None,
    backend: str,
    recurrent: bool,
) -> tuple[torch.Tensor, State | None]:
    """Two passes of gated linear attention: over the keys, with values that decay, and over the values."""
    keys, values, *log_sum = (None, None, None) if initial_state is None else initial_state
    if g is None:
        dtype = sum_dtype(q) if recurrent else q.dtype
        s, g, last = normalised_writes(s, log_sum[0], cu_seqlens, dtype, backend)
        log_sum = [last]
    else:
        log_sum = []
    groups = q.shape[2] // k.shape[2]
    if groups > 1:
        k, v, s, g = (x.repeat_interleave(groups, 2) for x in (k, v, s, g))
        keys, values = (None if x is None else x.repeat_interleave(groups, 1) for x in (keys, values))
    if recurrent:
        # In the dtype of sums, as the scores of the other form are.
        q_, k_, s_ = (x.to(sum_dtype(q)) for x in (q, k, s))
        scores, keys = run_recurrent_gla(q_, k_, s_, keys, cu_seqlens, scale, True, False, False, backend, gv=g)
        weights, narrow = scores.softmax(-1).to(q.dtype), s.to(q.dtype)
        o, values = run_recurrent_gla(weights, narrow, v, values, cu_seqlens, 1.0, True, False, False, backend, gk=g)
    else:
        weights, keys = run_slot_weights(q, k, s, g, keys, cu_seqlens, scale, backend)
        o, values = run_chunk_gla(weights, s, v, g, values, cu_seqlens, 1.0, True, False, backend)
    if not output_final_state:
        return o, None
    assert keys is not None
    assert values is not None
    if groups > 1:
        # Copies: the slices would keep the states of all query heads in memory.
        keys, values = (x[:, ::groups].clone(memory_format=torch.contiguous_format) for x in (keys, values))
    return o, (keys, values, *log_sum)


@remembered
def _check(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    s: torch.Tensor,
    g: torch.Tensor | None,
    scale: float | None,
    initial_state: State | None,
    cu_seqlens: torch.Tensor | None,
) -> float:
    """Validate what both forms share and return the scale."""
    sizes = bind_shapes(
        {
            "q": (q, "B T HQ K"),
            "k": (k, "B T H K"),
            "v": (v, "B T H V"),
            "s": (s, "B T H M"),
            "g": (g, "B T H M?"),
        }
    )
    check_not_empty(sizes)
    if sizes["HQ"] % sizes["H"]:
        raise ValueError(f"q: expected HQ a multiple of the H={sizes['H']} heads of k, got {list(q.shape)}")
    check_same_dtype({"q": q, "k": k, "v": v, "s": s})
    check_cu_seqlens(cu_seqlens, sizes["B"])
    letters = {"Hk": "N H K M", "Hv": "N H M V"} | ({"z": "N H M"} if g is None else {})
    states: dict[str, torch.Tensor] = {}
    if initial_state is not None:
        if not isinstance(initial_state, (tuple, list)) or len(initial_state) != len(letters):
            got = len(initial_state) if isinstance(initial_state, (tuple, list)) else type(initial_state).__name__
            reason = "normalised writes (g=None) go on from their sum z" if g is None else "a decay g is given"
            raise ValueError(f"initial_state: expected ({', '.join(letters)}), because {reason}, got {got}")
        states = {f"initial_state {name}": x for name, x in zip(letters, initial_state)}
        known = {**sizes, "N": count_sequences(cu_seqlens, sizes["B"])}
        bind_shapes({name: (x, wanted) for (name, x), wanted in zip(states.items(), letters.values())}, known)
    check_floating({"g": g, **states})
    check_same_device({"q": q, "k": k, "v": v, "s": s, "g": g, **states, "cu_seqlens": cu_seqlens})
    return sizes["K"] ** -0.5 if scale is None else float(scale)
