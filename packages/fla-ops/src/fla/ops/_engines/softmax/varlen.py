"""Attention by PyTorch's variable-length kernel: packed sequences and windows in one launch, on a GPU."""

from __future__ import annotations

import inspect
from itertools import pairwise
from typing import Any

import torch

from fla.ops._shared.arguments import widened
from fla.utils.varlen import boundaries

_options: frozenset[str] | None = None


def _kernel_options() -> frozenset[str]:
    """What the kernel takes in this PyTorch, nothing where there is none. Slow to import."""
    global _options
    if _options is None:
        try:
            from torch.nn.attention.varlen import varlen_attn

            _options = frozenset(inspect.signature(varlen_attn).parameters)
        except ImportError:
            _options = frozenset()
    return _options


def can_run_varlen(q: torch.Tensor) -> bool:
    """Whether the kernel is there and takes tensors like q. It says what is causal through its window."""
    return (
        q.is_cuda
        and q.dtype in (torch.float16, torch.bfloat16)
        and torch.version.hip is None
        and torch.cuda.get_device_capability(q.device) >= (8, 0)
        and {"scale", "window_size"} <= _kernel_options()
    )


def varlen_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    window_size: int | None,
    cu_seqlens: torch.Tensor | None,
    cu_seqlens_k: torch.Tensor | None,
    max_seqlen: int | None = None,
    max_seqlen_k: int | None = None,
) -> torch.Tensor:
    """Attention of q ``[B, T, HQ, K]`` over k and v ``[B, S, H, K]``; a dense batch is packed on the way.

    The kernel takes multiples of 8 channels: others are filled up with zeros.
    """
    from torch.nn.attention.varlen import varlen_attn

    batch, steps, _, channels = q.shape
    ends, longest = _boundaries(cu_seqlens, batch, steps, q.device, max_seqlen)
    ends_k, longest_k = ends, longest
    if cu_seqlens_k is not None or k.shape[1] != steps:
        ends_k, longest_k = _boundaries(cu_seqlens_k, batch, k.shape[1], k.device, max_seqlen_k)
    options: dict[str, Any] = {"scale": scale, "window_size": (-1 if window_size is None else window_size - 1, 0)}
    if "enable_gqa" in _kernel_options():
        options["enable_gqa"] = q.shape[2] != k.shape[2]
    elif q.shape[2] != k.shape[2]:
        # Before there was this option, grouped heads were not promised.
        k, v = (x.repeat_interleave(q.shape[2] // k.shape[2], dim=2) for x in (k, v))
    q, k, v = (widened(x.flatten(0, 1), channels + -channels % 8) for x in (q, k, v))
    o = varlen_attn(q, k, v, ends, ends_k, longest, longest_k, **options)
    assert isinstance(o, torch.Tensor)
    return o[..., :channels].unflatten(0, (batch, steps))  # type: ignore[no-any-return]


def _boundaries(
    cu_seqlens: torch.Tensor | None, batch: int, steps: int, device: torch.device, longest: int | None
) -> tuple[torch.Tensor, int]:
    """Boundaries on the device, and the length of the longest sequence: read if not given, in graphs a bound on it.

    All the steps would not do: the kernel starts programs for that many steps of every sequence.
    """
    if cu_seqlens is None:
        return torch.arange(0, batch * steps + 1, steps, dtype=torch.int32, device=device), steps
    if longest is not None:
        steps = min(longest, steps)
    elif not (torch.compiler.is_compiling() or (cu_seqlens.is_cuda and torch.cuda.is_current_stream_capturing())):
        ends = boundaries(cu_seqlens, steps)
        steps = max(end - start for start, end in pairwise(ends))
    return cu_seqlens.to(torch.int32).contiguous(), steps
