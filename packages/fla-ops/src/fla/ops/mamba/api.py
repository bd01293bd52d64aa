"""The public functions of the selective scan: what they compute and accept."""

from __future__ import annotations

import torch

from fla.ops._engines.selective_scan.ops import run_selective_scan
from fla.ops.mamba.reference import mamba_reference
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
)

#: States of a channel that the kernels hold.
MAX_STATES = 256


def selective_scan(
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None = None,
    z: torch.Tensor | None = None,
    delta_bias: torch.Tensor | None = None,
    delta_softplus: bool = False,
    initial_state: torch.Tensor | None = None,
    return_last_state: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    backend: str | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    r"""Mamba's selective scan: N states for each channel, which decay at rates of their own (arXiv 2312.00752).

    .. math::
        h_t = e^{\delta_t A} \odot h_{t-1} + \delta_t u_t B_t, \qquad
        y_t = (h_t \cdot C_t + D u_t)\, \mathrm{silu}(z_t)

    Steps, decays, states and every sum are taken in float32 (float64 for float64 inputs), the gradients with states
    recomputed in that precision; exponents are steps times rates, never differences, so decays of any strength are
    safe. Differentiable once in every floating argument. Nothing is copied where channels lie next to each other in
    memory, as in the transpose of ``[B, T, D]``.

    Args:
        u: inputs ``[B, D, T]``; float32, bfloat16, float16, or float64 on the torch backend. Any D.
        delta: step sizes ``[B, D, T]``, any floating dtype.
        A: rates ``[D, N]``, at most 0, any floating dtype; N at most 256.
        B: what inputs are written to ``[B, N, T]``, or ``[B, G, N, T]`` with D a multiple of G: channels ``i * D / G``
            and following share group i. Any floating dtype.
        C: what outputs are read from, as B.
        D: factor on the inputs that skip the recurrence ``[D]``, any floating dtype. None for none.
        z: gates of the outputs ``[B, D, T]``, any floating dtype, before their SiLU. None for none.
        delta_bias: added to delta ``[D]``, any floating dtype.
        delta_softplus: make steps positive by softplus, after the bias.
        initial_state: state before the first step ``[S, D, N]``; S is B, or the number of packed sequences.
        return_last_state: also return the state after the last step.
        cu_seqlens: boundaries of packed sequences ``[S + 1]``, int32 or int64, from 0 to T; B must be 1.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        y ``[B, D, T]`` in the dtype of u; with ``return_last_state`` ``(y, last_state)``, this one ``[S, D, N]`` in
        float32.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: an argument of the wrong shape, on another device, or a backend that cannot run here.

    Example:
        >>> u, delta, A = torch.randn(1, 32, 64), torch.rand(1, 32, 64), -torch.rand(32, 16)
        >>> B, C = torch.randn(2, 1, 16, 64)
        >>> selective_scan(u, delta, A, B, C).shape
        torch.Size([1, 32, 64])
    """
    _check(u, delta, A, B, C, D, z, delta_bias, initial_state, cu_seqlens)
    chosen = choose_backend(u, backend)
    if chosen == "reference":
        return mamba_reference(
            u,
            delta=delta,
            A=A,
            B=B,
            C=C,
            D=D,
            z=z,
            delta_bias=delta_bias,
            delta_softplus=delta_softplus,
            initial_state=initial_state,
            return_last_state=return_last_state,
            cu_seqlens=cu_seqlens,
        )
    y, last_state = run_selective_scan(
        u.transpose(1, 2),
        delta.transpose(1, 2),
        A,
        _groups_last(B),
        _groups_last(C),
        D,
        None if z is None else z.transpose(1, 2),
        delta_bias,
        initial_state,
        cu_seqlens,
        delta_softplus,
        chosen,
    )
    y = y.transpose(1, 2)
    return (y, last_state) if return_last_state else y


#: The name of mamba-ssm.
selective_scan_fn = selective_scan


@torch.no_grad()
def selective_state_update(
    state: torch.Tensor,
    x: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None = None,
    z: torch.Tensor | None = None,
    dt_bias: torch.Tensor | None = None,
    dt_softplus: bool = False,
    backend: str | None = None,
) -> torch.Tensor:
    r"""One step of :func:`selective_scan` that writes the new state over the old one (arXiv 2312.00752).

    .. math:: h \leftarrow e^{dt A} \odot h + dt\, x B, \qquad y = (h \cdot C + D x)\, \mathrm{silu}(z)

    For decoding, without gradients. Precision and errors are those of :func:`selective_scan`.

    Args:
        state: ``[B, D, N]``, any floating dtype; overwritten.
        x: inputs ``[B, D]``.
        dt: step sizes ``[B, D]``.
        A: rates ``[D, N]``.
        B: what inputs are written to ``[B, N]`` or ``[B, G, N]``.
        C: what outputs are read from, as B.
        D: factor on the inputs that skip the recurrence ``[D]``.
        z: gates of the outputs ``[B, D]``.
        dt_bias: added to dt ``[D]``.
        dt_softplus: make steps positive by softplus, after the bias.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        y ``[B, D]`` in the dtype of x.

    Example:
        >>> state, x, dt, A = torch.zeros(1, 32, 16), torch.randn(1, 32), torch.rand(1, 32), -torch.rand(32, 16)
        >>> B, C = torch.randn(2, 1, 16)
        >>> selective_state_update(state, x, dt, A, B, C).shape
        torch.Size([1, 32])
    """
    bind_shapes(
        {
            "state": (state, "B D N"),
            "x": (x, "B D"),
            "dt": (dt, "B D"),
            "A": (A, "D N"),
            "B": (B, "B G N" if isinstance(B, torch.Tensor) and B.ndim == 3 else "B N"),
            "C": (C, "B G N" if isinstance(C, torch.Tensor) and C.ndim == 3 else "B N"),
            "D": (D, "D?"),
            "z": (z, "B D?"),
            "dt_bias": (dt_bias, "D?"),
        }
    )
    y, last_state = selective_scan(
        x.unsqueeze(-1),
        dt.unsqueeze(-1),
        A,
        B.unsqueeze(-1),
        C.unsqueeze(-1),
        D,
        None if z is None else z.unsqueeze(-1),
        dt_bias,
        dt_softplus,
        initial_state=state,
        return_last_state=True,
        backend=backend,
    )
    state.copy_(last_state)
    return y.squeeze(-1)


@remembered
def _check(
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None,
    z: torch.Tensor | None,
    delta_bias: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
) -> None:
    grouped = isinstance(B, torch.Tensor) and B.ndim == 4
    letters = "B G N T" if grouped else "B N T"
    sizes = bind_shapes(
        {
            "u": (u, "B D T"),
            "delta": (delta, "B D T"),
            "A": (A, "D N"),
            "B": (B, letters),
            "C": (C, letters),
            "D": (D, "D?"),
            "z": (z, "B D T?"),
            "delta_bias": (delta_bias, "D?"),
        }
    )
    check_not_empty(sizes)
    if grouped and sizes["D"] % sizes["G"]:
        raise ValueError(f"B: expected G a divisor of the D={sizes['D']} channels of u, got {list(B.shape)}")
    if sizes["N"] > MAX_STATES:
        raise ValueError(f"A: expected at most {MAX_STATES} states for each channel, got N={sizes['N']}")
    check_same_dtype({"u": u})
    others = {"delta": delta, "A": A, "B": B, "C": C, "D": D, "z": z, "delta_bias": delta_bias}
    check_floating({**others, "initial_state": initial_state})
    check_cu_seqlens(cu_seqlens, sizes["B"])
    sequences = {"S": count_sequences(cu_seqlens, sizes["B"])}
    bind_shapes({"initial_state": (initial_state, "S D N?")}, known={**sizes, **sequences})
    check_same_device({"u": u, **others, "initial_state": initial_state, "cu_seqlens": cu_seqlens})


def _groups_last(x: torch.Tensor) -> torch.Tensor:
    """``[B, N, T]`` or ``[B, G, N, T]`` as ``[B, T, G, N]``."""
    return (x if x.ndim == 4 else x.unsqueeze(1)).permute(0, 3, 1, 2)
