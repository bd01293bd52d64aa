"""The public functions of HGRN's recurrence: what they compute and accept."""

from __future__ import annotations

import torch

from fla.ops._engines.scan.ops import run_hgrn
from fla.ops.hgrn.reference import hgrn_reference
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


def chunk_hgrn(
    x: torch.Tensor,
    g: torch.Tensor,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""HGRN's recurrence, elementwise over whole sequences (arXiv 2311.04823).

    .. math:: h_t = e^{g_t} \odot h_{t-1} + x_t, \qquad o_t = h_t

    The state, the decay and every sum are accumulated in float32 (float64 for float64 inputs), the gradients with a
    state recomputed in that precision; exponents are sums of decays, never differences, so decays of any strength are
    safe. Differentiable once in every floating argument.

    Args:
        x: inputs ``[B, T, D]``; float32, bfloat16, float16, or float64 on the torch backend. Any D.
        g: log decay ``[B, T, D]``, natural logarithm, at most 0, minus infinity for a reset; any floating dtype.
        initial_state: state before the first step ``[N, D]``; N is B, or the number of packed sequences.
        output_final_state: also return the state after the last step.
        cu_seqlens: boundaries of packed sequences ``[N + 1]``, int32 or int64, from 0 to T; B must be 1.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        ``(o, final_state)``: every state o ``[B, T, D]`` in the dtype of x; the last one ``[N, D]`` in float32, None
        unless asked for.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: an argument of the wrong shape, on another device, or a backend that cannot run here.

    Example:
        >>> x, g = torch.randn(1, 64, 32), F.logsigmoid(torch.randn(1, 64, 32))
        >>> o, state = chunk_hgrn(x, g, output_final_state=True)
        >>> o.shape, state.shape
        (torch.Size([1, 64, 32]), torch.Size([1, 32]))
    """
    _check(x, g, initial_state, cu_seqlens)
    chosen = choose_backend(x, backend)
    if chosen == "reference":
        return hgrn_reference(
            x, g=g, initial_state=initial_state, output_final_state=output_final_state, cu_seqlens=cu_seqlens
        )
    return run_hgrn(x, g, initial_state, cu_seqlens, output_final_state, chosen)


@remembered
def _check(
    x: torch.Tensor, g: torch.Tensor, initial_state: torch.Tensor | None, cu_seqlens: torch.Tensor | None
) -> None:
    sizes = bind_shapes({"x": (x, "B T D"), "g": (g, "B T D")})
    check_not_empty(sizes)
    check_same_dtype({"x": x})
    check_floating({"g": g, "initial_state": initial_state})
    check_cu_seqlens(cu_seqlens, sizes["B"])
    sequences = {"N": count_sequences(cu_seqlens, sizes["B"])}
    bind_shapes({"initial_state": (initial_state, "N D?")}, known={**sizes, **sequences})
    check_same_device({"x": x, "g": g, "initial_state": initial_state, "cu_seqlens": cu_seqlens})


def fused_recurrent_hgrn(
    x: torch.Tensor,
    g: torch.Tensor,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""HGRN's recurrence by its other name (arXiv 2311.04823): :func:`chunk_hgrn`, which serves one step as well.

    .. math:: h_t = e^{g_t} \odot h_{t-1} + x_t, \qquad o_t = h_t

    One scan does for both, and cuts time only where that is faster.

    Args:
        x: inputs ``[B, T, D]``.
        g: log decay ``[B, T, D]``.
        initial_state: state before the first step ``[N, D]``.
        output_final_state: also return the state after the last step.
        cu_seqlens: boundaries of packed sequences ``[N + 1]``; B must be 1.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        ``(o, final_state)``, and errors, as :func:`chunk_hgrn`.

    Example:
        >>> x, g = torch.randn(1, 64, 32), F.logsigmoid(torch.randn(1, 64, 32))
        >>> o, state = fused_recurrent_hgrn(x, g, output_final_state=True)
        >>> o.shape, state.shape
        (torch.Size([1, 64, 32]), torch.Size([1, 32]))
    """
    return chunk_hgrn(x, g, initial_state, output_final_state, cu_seqlens, backend)
