"""The public function of softmax attention: what it computes and accepts."""

from __future__ import annotations

import torch

from fla.ops._engines.softmax.dense import dense_attention, packed_attention
from fla.ops._engines.softmax.varlen import can_run_varlen, varlen_attention
from fla.ops._shared.arguments import widened
from fla.ops.attn.reference import attn_reference
from fla.utils import backends
from fla.utils.validation import (
    bind_shapes,
    check_cu_seqlens,
    check_head_dims,
    check_not_empty,
    check_same_device,
    check_same_dtype,
    remembered,
)

BACKENDS = ("torch", "reference")


def parallel_attn(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float | None = None,
    window_size: int | None = None,
    cu_seqlens: torch.Tensor | None = None,
    cu_seqlens_k: torch.Tensor | None = None,
    backend: str | None = None,
    max_seqlen: int | None = None,
    max_seqlen_k: int | None = None,
) -> torch.Tensor:
    r"""Causal softmax attention (arXiv 1706.03762), by PyTorch's kernels.

    .. math:: o_t = \sum_{s} \mathrm{softmax}_s(scale \cdot q_t \cdot k_s)\, v_s, \qquad t - window\_size < s \le t

    Memory is linear in the lengths: no T x T mask or scores are ever made. PyTorch's calls are:

    - ``scaled_dot_product_attention`` without a mask for a dense batch that needs none or the causal one: without a
      window and as many queries as keys, or one query;
    - ``torch.nn.attention.varlen.varlen_attn``, in one launch, for all else (packed sequences, windows, queries after
      a past) in bfloat16 and float16 on NVIDIA GPUs from compute capability 8.0, with K a multiple of 8 and a PyTorch
      whose call takes ``window_size`` and ``scale``;
    - otherwise ``scaled_dot_product_attention`` sequence by sequence, and where there is a window or a past by blocks
      of queries, each over the keys that it sees and with a mask of that size.

    Scores and softmax are in float32 (float64 for float64 inputs). Differentiable
    in q, k and v. There may be more keys than queries: the queries are the last steps of their sequence.

    Args:
        q: queries ``[B, T, HQ, K]``; float32, bfloat16, float16 or float64. K up to 256.
        k: keys ``[B, S, H, K]`` with ``S >= T``, HQ a multiple of H.
        v: values ``[B, S, H, V]``. V up to 256.
        scale: factor on the scores, ``K ** -0.5`` unless given.
        window_size: keys that a query sees, that of its own step included; all before it unless given.
        cu_seqlens: boundaries of packed sequences ``[N + 1]``, int32 or int64, from 0 to T; B must be 1.
        cu_seqlens_k: boundaries of the keys, from 0 to S, where there are more keys than queries.
        backend: ``"torch"`` or ``"reference"``; the first unless given.
        max_seqlen: the length of the longest packed sequence, or a number not far above it. It is read from
            ``cu_seqlens`` unless given, and on a GPU that waits for the device.
        max_seqlen_k: the same of the keys, where they have boundaries of their own.

    Returns:
        o ``[B, T, HQ, V]`` in the dtype of v.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: an argument of the wrong shape, on another device, or an unknown backend.

    Example:
        >>> q, k, v = torch.randn(1, 64, 4, 32), *torch.randn(2, 1, 64, 2, 32)
        >>> parallel_attn(q, k, v, window_size=16).shape
        torch.Size([1, 64, 4, 32])
    """
    _check(q, k, v, window_size, cu_seqlens, cu_seqlens_k)
    if _choose(backend) == "reference":
        return attn_reference(
            q, k, v, scale=scale, window_size=window_size, cu_seqlens=cu_seqlens, cu_seqlens_k=cu_seqlens_k
        )
    scale = q.shape[-1] ** -0.5 if scale is None else float(scale)
    # The kernels that keep no scores in memory want one width.
    width, value_dim = max(q.shape[-1], v.shape[-1]), v.shape[-1]
    q, k, v = (widened(x, width) for x in (q, k, v))
    o = _run(q, k, v, scale, window_size, cu_seqlens, cu_seqlens_k, max_seqlen, max_seqlen_k)
    return o if width == value_dim else o[..., :value_dim]


def _run(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    window_size: int | None,
    cu_seqlens: torch.Tensor | None,
    cu_seqlens_k: torch.Tensor | None,
    max_seqlen: int | None,
    max_seqlen_k: int | None,
) -> torch.Tensor:
    # What needs no mask, or that of a plain causal square, is best served by the dense kernels.
    square = window_size is None and q.shape[1] == k.shape[1]
    if cu_seqlens is None and (square or q.shape[1] == 1):
        return dense_attention(q, k, v, scale, window_size)
    if can_run_varlen(q):
        return varlen_attention(q, k, v, scale, window_size, cu_seqlens, cu_seqlens_k, max_seqlen, max_seqlen_k)
    if cu_seqlens is None:
        return dense_attention(q, k, v, scale, window_size)
    return packed_attention(q, k, v, scale, window_size, cu_seqlens, cu_seqlens_k)


def _choose(backend: str | None) -> str:
    if backend is None:
        return "reference" if backends.PROCESS_BACKEND == "reference" else "torch"
    if backend not in BACKENDS:
        raise ValueError(
            f"backend: expected one of {', '.join(BACKENDS)} or None (attention runs on PyTorch's kernels), "
            f"got {backend!r}"
        )
    return backend


@remembered
def _check(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    window_size: int | None,
    cu_seqlens: torch.Tensor | None,
    cu_seqlens_k: torch.Tensor | None,
) -> None:
    sizes = bind_shapes({"q": (q, "B T HQ K"), "k": (k, "B S H K"), "v": (v, "B S H V")})
    check_not_empty(sizes)
    check_head_dims(sizes)
    check_same_dtype({"q": q, "k": k, "v": v})
    check_same_device({"q": q, "k": k, "v": v, "cu_seqlens": cu_seqlens, "cu_seqlens_k": cu_seqlens_k})
    check_cu_seqlens(cu_seqlens, sizes["B"])
    check_cu_seqlens(cu_seqlens_k, sizes["B"])
    if sizes["HQ"] % sizes["H"]:
        raise ValueError(f"q: expected HQ a multiple of the H={sizes['H']} heads of k, got {list(q.shape)}")
    if window_size is not None and window_size < 1:
        raise ValueError(f"window_size: expected at least 1, or None for no window, got {window_size}")
    if cu_seqlens_k is not None and (cu_seqlens is None or cu_seqlens.shape != cu_seqlens_k.shape):
        got = None if cu_seqlens is None else list(cu_seqlens.shape)
        raise ValueError(f"cu_seqlens_k: expected the shape of cu_seqlens {got}, got {list(cu_seqlens_k.shape)}")
    packed_alike = cu_seqlens is not None and cu_seqlens_k is None
    if sizes["S"] < sizes["T"] or (packed_alike and sizes["S"] != sizes["T"]):
        wanted = "S = T without cu_seqlens_k" if packed_alike else "S >= T"
        raise ValueError(f"k: expected shape [B, S, H, K] with {wanted}, T={sizes['T']}, got {list(k.shape)}")
