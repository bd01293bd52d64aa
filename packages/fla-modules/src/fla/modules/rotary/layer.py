"""The rotary position embedding as a module: it owns the tables of cosines and sines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fla.modules.rotary.api import rotate
from fla.modules.rotary.positions import Tables
from fla.modules.rotary.scaling import RopeScaling
from fla.utils.tiles import power_of_two


class RotaryEmbedding(nn.Module):
    r"""Rotary position embedding of queries and keys (arXiv 2104.09864).

    Channels 2i and 2i + 1 (``interleaved``), or i and i + dim / 2, turn by the angle :math:`p \cdot base^{-2i/dim}`
    at position p. Angles are computed in float32 and the tables kept in float32, longer as needed; they are no part
    of the state dict.

    Args:
        dim: channels that turn, even, at most the head dimension; the rest pass through.
        base: of the frequencies.
        scale_base: with xPos (arXiv 2212.10554), the steps over which the decay of its scores acts. The scale counts
            from position 0, so that it does not depend on how long the sequence will become.
        interleaved: neighbouring channels make a pair.
        pos_idx_in_fp32: False computes angles in the dtype of the queries, for models that were trained so.
        device: where to make the first tables; they follow the queries.
        scaling: a ``rope_scaling`` of Hugging Face's configs, for contexts longer than those of training; see
            :class:`fla.modules.rotary.scaling.RopeScaling`.

    Raises:
        TypeError: ``scaling`` is no mapping.
        ValueError: ``dim`` is odd or not positive, or ``scaling`` names what is not known.
    """

    def __init__(
        self,
        dim: int,
        base: float = 10000.0,
        scale_base: float | None = None,
        interleaved: bool = False,
        pos_idx_in_fp32: bool = True,
        device: torch.device | str | None = None,
        scaling: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if dim <= 0 or dim % 2:
            raise ValueError(f"dim: expected an even number above 0, got {dim}")
        self.dim = dim
        self.base = float(base)
        self.scale_base = scale_base
        self.interleaved = interleaved
        self.pos_idx_in_fp32 = pos_idx_in_fp32
        self.scaling = RopeScaling(scaling, self.base)
        self._tables: Tables | None = None
        if device is not None and torch.device(device).type != "meta":
            self._lookup(1, torch.device(device), torch.float32)

    def forward(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        seqlen_offset: int | torch.Tensor = 0,
        cu_seqlens: torch.Tensor | None = None,
        max_seqlen: int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Turn q and k by their positions.

        Args:
            q: ``[B, T, H, D]``.
            k: ``[B, T, HK, D]``.
            seqlen_offset: position of the first step, one for all or a tensor ``[N]``.
            cu_seqlens: boundaries of packed sequences ``[N + 1]``; positions start again in each.
            max_seqlen: one more than the largest position, offsets included. Give it with a tensor of offsets:
                without it their maximum is read from the device.

        Returns:
            q and k, turned.
        """
        length = self._needed(q.shape[1], seqlen_offset) if max_seqlen is None else max_seqlen
        tables = self._lookup(length, q.device, q.dtype)
        return rotate(q, k, tables, self.interleaved, seqlen_offset, cu_seqlens)  # type: ignore[return-value]

    @staticmethod
    def _needed(total: int, seqlen_offset: int | torch.Tensor) -> int:
        if isinstance(seqlen_offset, torch.Tensor):
            return total + int(seqlen_offset.max())
        return total + seqlen_offset

    def _lookup(self, length: int, device: torch.device, dtype: torch.dtype) -> Tables:
        """The tables for ``length`` positions: the kept ones where they are long enough, else new ones."""
        angle_dtype = torch.float32 if self.pos_idx_in_fp32 else dtype
        if torch.compiler.is_compiling():
            # Inside a graph the tables are cheap, and keeping them would tie the graph to their length.
            return self._make(length, device, angle_dtype)
        kept = self._tables
        if kept is None or kept.cos.shape[0] < length or kept.cos.device != device or not self.pos_idx_in_fp32:
            # Tables made in inference mode could not be used in training later.
            with torch.inference_mode(False):
                kept = self._tables = self._make(power_of_two(length, 256), device, angle_dtype)
        return kept

    def _make(self, length: int, device: torch.device, dtype: torch.dtype) -> Tables:
        channel = torch.arange(0, self.dim, 2, device=device, dtype=torch.float32)
        frequencies = self.scaling.scale(1 / self.base ** (channel / self.dim))
        steps = torch.arange(length, device=device)
        angles = (steps[:, None].to(dtype) * frequencies.to(dtype)).float()
        cos, sin = angles.cos() * self.scaling.factor, angles.sin() * self.scaling.factor
        if self.scale_base is None:
            return Tables(cos, sin)
        scale = ((channel + 0.4 * self.dim) / (1.4 * self.dim)) ** (steps[:, None] / self.scale_base)
        return Tables(cos * scale, sin * scale, cos / scale, sin / scale)

    def extra_repr(self) -> str:
        """Size and options."""
        options = f"{self.dim}, base={self.base}, interleaved={self.interleaved}, scale_base={self.scale_base}"
        return options if self.scaling.kind == "default" else f"{options}, scaling={self.scaling.kind}"
