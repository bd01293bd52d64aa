"""The functional form of the token shift."""

from __future__ import annotations

from typing import Literal, overload

import torch

from fla.modules._checks import check_tensor
from fla.modules.token_shift.ops import run_shift_triton
from fla.modules.token_shift.reference import last_tokens, token_shift_ref
from fla.utils.backends import choose_backend
from fla.utils.validation import bind_shapes, check_cu_seqlens, check_not_empty, check_same_device, count_sequences
from fla.utils.varlen import boundaries


@overload
def token_shift(
    x: torch.Tensor,
    cu_seqlens: torch.Tensor | None = None,
    cache: torch.Tensor | None = None,
    output_cache: Literal[False] = False,
    backend: str | None = None,
) -> torch.Tensor: ...


@overload
def token_shift(
    x: torch.Tensor,
    cu_seqlens: torch.Tensor | None = None,
    cache: torch.Tensor | None = None,
    *,
    output_cache: Literal[True],
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor]: ...


def token_shift(
    x: torch.Tensor,
    cu_seqlens: torch.Tensor | None = None,
    cache: torch.Tensor | None = None,
    output_cache: bool = False,
    backend: str | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    r"""What the token before has more than each token (arXiv 2305.13048).

    .. math:: \Delta_t = x_{t-1} - x_t, \qquad x_{-1} = cache \text{ or } 0

    Mixing a token with the one before it is then ``x + mu * delta``. Computed in float32 (float64 for float64 inputs)
    and rounded once. Differentiable once in x and cache.

    Args:
        x: ``[B, T, D]``; float32, bfloat16, float16, or float64 on the torch backend.
        cu_seqlens: boundaries of packed sequences ``[N + 1]``, int32 or int64, from 0 to T; B must be 1. The first
            token of each has none before it but that of the cache.
        cache: the last token before each sequence, ``[N, 1, D]`` or ``[N, D]``, any floating dtype; zeros unless
            given.
        output_cache: also return the last token of each sequence.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        The differences ``[B, T, D]`` in the dtype of x, or with ``output_cache`` these and the cache ``[N, 1, D]`` of
        the next call, likewise; a sequence without tokens keeps its cache.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: a shape or device that does not fit, or a backend that cannot run here.
    """
    sizes = bind_shapes({"x": (x, "B T D")})
    check_tensor("x", x)
    check_not_empty(sizes)
    check_cu_seqlens(cu_seqlens, sizes["B"])
    check_same_device({"x": x, "cu_seqlens": cu_seqlens})
    if cache is not None:
        check_tensor("cache", cache, x.device)
        sequences, channels = count_sequences(cu_seqlens, sizes["B"]), sizes["D"]
        if tuple(cache.shape) not in ((sequences, 1, channels), (sequences, channels)):
            raise ValueError(
                f"cache: expected shape [N, 1, D] or [N, D] with N={sequences}, D={channels}, got {list(cache.shape)}"
            )
    if choose_backend(x, backend) == "triton":
        delta = run_shift_triton(x, cu_seqlens, cache)
    else:
        if cu_seqlens is not None and not torch.compiler.is_compiling():
            boundaries(cu_seqlens, sizes["T"])
        delta = token_shift_ref(x, cu_seqlens, cache)
    return (delta, last_tokens(x, cu_seqlens, cache)) if output_cache else delta
