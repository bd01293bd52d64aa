"""The public functions of state-space duality: what they compute and accept."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from fla.ops._engines.decay_steps.ops import run_recurrent_gla
from fla.ops._engines.scalar_decay.ops import run_chunk_simple_gla
from fla.ops._engines.scalar_decay.weighted_ops import run_chunk_ssd
from fla.ops._shared.arguments import sum_dtype
from fla.ops.ssd.reference import ssd_reference
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

UNLIMITED = (0.0, float("inf"))


def mamba_chunk_scan(
    x: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    chunk_size: int = 256,
    D: torch.Tensor | None = None,
    z: torch.Tensor | None = None,
    dt_bias: torch.Tensor | None = None,
    initial_states: torch.Tensor | None = None,
    seq_idx: torch.Tensor | None = None,
    cu_seqlens: torch.Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = UNLIMITED,
    return_final_states: bool = False,
    backend: str | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    r"""Mamba-2's recurrence over whole sequences, chunk by chunk (arXiv 2405.21060).

    .. math::
        h_t = e^{\Delta_t A}\, h_{t-1} + \Delta_t\, x_t B_t^\top, \qquad
        y_t = (h_t C_t + D \odot x_t) \odot \mathrm{silu}(z_t)

    per head, :math:`\Delta_t` being dt with its bias, through softplus and within its limits as asked for.

    Step sizes, decays, the state and every sum are taken in float32 (float64 for float64 inputs); exponents are
    always sums of log decays, so decays of any strength are safe. Differentiable once in every floating argument.

    Args:
        x: inputs ``[B, T, H, P]``; float32, bfloat16, float16, or float64 on the torch backend.
        dt: step sizes ``[B, T, H]``, any floating dtype.
        A: rate of each head ``[H]``, at most 0, any floating dtype: a step of size dt decays by ``exp(dt * A)``.
        B: what inputs are written to ``[B, T, G, N]``, in the dtype of x; H a multiple of G: heads ``i * H / G`` and
            following share group i.
        C: what outputs are read from ``[B, T, G, N]``, in the dtype of x.
        chunk_size: nothing depends on it, chunks have the size that suits the device.
        D: factor on the inputs that skip the recurrence ``[H]`` or ``[H, P]``, any floating dtype. None for none.
        z: gates of the outputs ``[B, T, H, P]``, any floating dtype, before their SiLU. None for none.
        dt_bias: added to dt ``[H]``, any floating dtype.
        initial_states: states before the first step ``[B, H, P, N]``, or one for each packed sequence.
        seq_idx: must be None; packed sequences are told apart by ``cu_seqlens``.
        cu_seqlens: boundaries of packed sequences, int32 or int64, from 0 to T; B must be 1.
        dt_softplus: make steps positive by softplus, after the bias.
        dt_limit: the least and the greatest step, enforced last.
        return_final_states: also return the states after the last step.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        y ``[B, T, H, P]`` in the dtype of x; with ``return_final_states`` ``(y, final_states)``, these in float32 and
        in the shape of ``initial_states``.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: an argument of the wrong shape, on another device, limits that are no interval above 0, a
            ``seq_idx``, or a backend that cannot run here.

    Example:
        >>> x, dt, A = torch.randn(1, 64, 4, 32), torch.rand(1, 64, 4), -torch.rand(4)
        >>> B, C = torch.randn(2, 1, 64, 1, 16)
        >>> mamba_chunk_scan(x, dt, A, B, C, chunk_size=64).shape
        torch.Size([1, 64, 4, 32])
    """
    if seq_idx is not None:
        raise ValueError("seq_idx: expected None, pack sequences by cu_seqlens, their boundaries from 0 to T")
    if chunk_size < 1:
        raise ValueError(f"chunk_size: expected at least 1, got {chunk_size}")
    _check(x, dt, A, B, C, D, z, dt_bias, initial_states, cu_seqlens, dt_limit)
    chosen = choose_backend(x, backend)
    if chosen == "reference":
        return ssd_reference(
            x,
            dt=dt,
            A=A,
            B=B,
            C=C,
            D=D,
            z=z,
            dt_bias=dt_bias,
            initial_states=initial_states,
            cu_seqlens=cu_seqlens,
            dt_softplus=dt_softplus,
            dt_limit=dt_limit,
            return_final_states=return_final_states,
        )
    step = _steps(dt, dt_bias, dt_softplus, dt_limit, sum_dtype(x))
    g = _log_decay(step, A)
    if chosen == "triton":
        skip = None if D is None else D.to(sum_dtype(x)).reshape(x.shape[2], -1).expand(x.shape[2:])
        start = None if initial_states is None else initial_states.transpose(-1, -2)
        y, states = run_chunk_ssd(C, B, x, g, step, skip, start, cu_seqlens)
        y, final_states = _skip_and_gate(y, x, None, z), states.transpose(-1, -2).contiguous()
    else:
        y, last = run_chunk_simple_gla(
            C, B, _inputs(x, step), g, None, initial_states, cu_seqlens, 1.0, True, True, chosen
        )
        assert last is not None
        y, final_states = _skip_and_gate(y, x, D, z), last
    return (y, final_states) if return_final_states else y


#: The name of mamba-ssm.
mamba_chunk_scan_combined = mamba_chunk_scan


def fused_recurrent_ssd(
    x: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None = None,
    z: torch.Tensor | None = None,
    dt_bias: torch.Tensor | None = None,
    initial_states: torch.Tensor | None = None,
    cu_seqlens: torch.Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = UNLIMITED,
    return_final_states: bool = False,
    backend: str | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    r"""Mamba-2's recurrence, one step after the other: for decoding and short sequences (arXiv 2405.21060).

    .. math::
        h_t = e^{\Delta_t A}\, h_{t-1} + \Delta_t\, x_t B_t^\top, \qquad
        y_t = (h_t C_t + D \odot x_t) \odot \mathrm{silu}(z_t)

    Arguments, precision, results and errors are those of :func:`mamba_chunk_scan`.

    Args:
        x: inputs ``[B, T, H, P]``.
        dt: step sizes ``[B, T, H]``.
        A: rate of each head ``[H]``, at most 0.
        B: what inputs are written to ``[B, T, G, N]``.
        C: what outputs are read from ``[B, T, G, N]``.
        D: factor on the inputs that skip the recurrence ``[H]`` or ``[H, P]``.
        z: gates of the outputs ``[B, T, H, P]``.
        dt_bias: added to dt ``[H]``.
        initial_states: ``[B, H, P, N]``, or one for each packed sequence.
        cu_seqlens: boundaries of packed sequences; B must be 1.
        dt_softplus: make steps positive by softplus.
        dt_limit: the least and the greatest step.
        return_final_states: also return the last states.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        y ``[B, T, H, P]`` in the dtype of x, or ``(y, final_states)``.

    Example:
        >>> x, dt, A = torch.randn(1, 64, 4, 32), torch.rand(1, 64, 4), -torch.rand(4)
        >>> B, C = torch.randn(2, 1, 64, 1, 16)
        >>> fused_recurrent_ssd(x, dt, A, B, C).shape
        torch.Size([1, 64, 4, 32])
    """
    _check(x, dt, A, B, C, D, z, dt_bias, initial_states, cu_seqlens, dt_limit)
    chosen = choose_backend(x, backend)
    if chosen == "reference":
        return ssd_reference(
            x,
            dt=dt,
            A=A,
            B=B,
            C=C,
            D=D,
            z=z,
            dt_bias=dt_bias,
            initial_states=initial_states,
            cu_seqlens=cu_seqlens,
            dt_softplus=dt_softplus,
            dt_limit=dt_limit,
            return_final_states=return_final_states,
        )
    step = _steps(dt, dt_bias, dt_softplus, dt_limit, sum_dtype(x))
    y, final_states = run_recurrent_gla(
        C, B, _inputs(x, step), initial_states, cu_seqlens, 1.0, True, False, True, chosen, g=_log_decay(step, A)
    )
    y = _skip_and_gate(y, x, D, z)
    assert final_states is not None
    return (y, final_states) if return_final_states else y


@remembered
def _check(
    x: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None,
    z: torch.Tensor | None,
    dt_bias: torch.Tensor | None,
    initial_states: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    dt_limit: tuple[float, float],
) -> None:
    skip = "H P?" if isinstance(D, torch.Tensor) and D.ndim > 1 else "H?"
    sizes = bind_shapes(
        {
            "x": (x, "B T H P"),
            "dt": (dt, "B T H"),
            "A": (A, "H"),
            "B": (B, "B T G N"),
            "C": (C, "B T G N"),
            "D": (D, skip),
            "z": (z, "B T H P?"),
            "dt_bias": (dt_bias, "H?"),
        }
    )
    check_not_empty(sizes)
    if sizes["H"] % sizes["G"]:
        raise ValueError(f"B: expected G a divisor of the H={sizes['H']} heads of x, got {list(B.shape)}")
    check_same_dtype({"x": x, "B": B, "C": C})
    others = {"dt": dt, "A": A, "D": D, "z": z, "dt_bias": dt_bias, "initial_states": initial_states}
    check_floating(others)
    check_cu_seqlens(cu_seqlens, sizes["B"])
    sequences = {"S": count_sequences(cu_seqlens, sizes["B"])}
    bind_shapes({"initial_states": (initial_states, "S H P N?")}, known={**sizes, **sequences})
    check_same_device({"x": x, "B": B, "C": C, **others, "cu_seqlens": cu_seqlens})
    least, greatest = dt_limit
    if not 0 <= least <= greatest:
        raise ValueError(f"dt_limit: expected 0 <= least <= greatest, got {tuple(dt_limit)}")


def _steps(
    dt: torch.Tensor,
    dt_bias: torch.Tensor | None,
    dt_softplus: bool,
    dt_limit: tuple[float, float],
    dtype: torch.dtype,
) -> torch.Tensor:
    step = dt.to(dtype)
    if dt_bias is not None:
        step = step + dt_bias.to(dtype)
    if dt_softplus:
        step = F.softplus(step)
    return step.clamp(*dt_limit)


def _inputs(x: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    return (x * step.unsqueeze(-1)).to(x.dtype)


def _log_decay(step: torch.Tensor, A: torch.Tensor) -> torch.Tensor:
    return step * A.to(step.dtype)


def _skip_and_gate(y: torch.Tensor, x: torch.Tensor, D: torch.Tensor | None, z: torch.Tensor | None) -> torch.Tensor:
    if D is not None:
        y = torch.addcmul(y, x, D.to(sum_dtype(x)).reshape(x.shape[2], -1))
    if z is not None:
        y = y * F.silu(z.to(sum_dtype(x)))
    return y.to(x.dtype)
