"""What RWKV-7 does around its recurrence, element by element: plain PyTorch, which ``torch.compile`` fuses."""

from __future__ import annotations

import torch

from fla.utils.validation import bind_shapes, check_same_dtype, resolve_boundaries


def fused_addcmul_rwkv7(
    hidden_states: torch.Tensor,
    delta: torch.Tensor,
    xr: torch.Tensor,
    xw: torch.Tensor,
    xk: torch.Tensor,
    xv: torch.Tensor,
    xa: torch.Tensor,
    xg: torch.Tensor | None = None,
) -> tuple[torch.Tensor | None, ...]:
    r"""Tokens mixed with the ones before them, in six shares: ``x + delta * share`` (arXiv 2503.14456).

    Args:
        hidden_states: x ``[B, T, D]``.
        delta: what the token before has more ``[B, T, D]``, see :func:`fla.modules.token_shift.token_shift`.
        xr: the share of the token before ``[D]``, or any shape that broadcasts, and so are the others.
        xw: likewise.
        xk: likewise.
        xv: likewise.
        xa: likewise.
        xg: likewise, or None.

    Returns:
        The six mixtures ``[B, T, D]``, the last None where ``xg`` is.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: delta is not of the shape of the hidden states.
    """
    bind_shapes({"hidden_states": (hidden_states, "B T D"), "delta": (delta, "B T D")})
    check_same_dtype({"hidden_states": hidden_states, "delta": delta})
    shares = (xr, xw, xk, xv, xa, xg)
    return tuple(None if share is None else torch.addcmul(hidden_states, delta, share) for share in shares)


def fused_k_rwkv7(
    k: torch.Tensor,
    a: torch.Tensor,
    ka: torch.Tensor,
    cu_seqlens: torch.Tensor | None = None,
    cu_seqlens_cpu: torch.Tensor | None = None,
) -> torch.Tensor:
    r"""Keys that are written as strongly as the state is corrected: ``k (1 + (a - 1) ka)`` (arXiv 2503.14456).

    Args:
        k: keys ``[B, T, D]``.
        a: strength of the correction ``[B, T, D]``, from 0 to 1.
        ka: how much of it the keys follow ``[D]``.
        cu_seqlens: nothing depends on it: every step is for itself.
        cu_seqlens_cpu: likewise; but where both are given they are checked as elsewhere.

    Returns:
        ``[B, T, D]``.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: an argument of the wrong shape.
    """
    bind_shapes({"k": (k, "B T D"), "a": (a, "B T D"), "ka": (ka, "D")})
    resolve_boundaries(k, cu_seqlens, cu_seqlens_cpu)
    check_same_dtype({"k": k, "a": a})
    return (k * (1 + (a - 1) * ka)).to(k.dtype)


def gate_output_correction(
    o: torch.Tensor,
    r: torch.Tensor,
    k: torch.Tensor,
    r_k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
) -> torch.Tensor:
    r"""The output with a bonus for the current token, gated (arXiv 2503.14456).

    .. math:: (o + (r \odot r_k)^\top k \cdot v) \odot g

    The sum over the channels of a head is accumulated in float32.

    Args:
        o: outputs of the recurrence ``[B, T, H * V]``.
        r: receptances ``[B, T, H, K]``.
        k: keys ``[B, T, H, K]``.
        r_k: weights of the bonus ``[H, K]``.
        v: values ``[B, T, H, V]``.
        g: gates ``[B, T, H * V]``.

    Returns:
        ``[B, T, H * V]``.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: an argument of the wrong shape.
    """
    heads = {"r": (r, "B T H K"), "k": (k, "B T H K"), "r_k": (r_k, "H K"), "v": (v, "B T H V")}
    sizes = bind_shapes(heads)
    channels = {**sizes, "H*V": sizes["H"] * sizes["V"]}
    bind_shapes({"o": (o, "B T H*V"), "g": (g, "B T H*V")}, channels)
    check_same_dtype({"r": r, "k": k, "v": v, "o": o, "g": g})
    bonus = (r * k * r_k).sum(-1, keepdim=True) * v
    return ((o + bonus.flatten(-2)) * g).to(o.dtype)
