"""Cutting sequences into chunks in plain PyTorch, dense and packed alike: shared by every ``algorithm.py``."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from fla.utils.varlen import boundaries

ChunkIndex = slice | torch.Tensor


class ChunkLayout:
    """The chunks of a batch of sequences, numbered sequence by sequence.

    Chunked tensors are ``[M, H, C, D]`` with M chunks in all; rows past the end of a sequence are zero. A scan
    over time visits, step by step, the chunks at the same position of every sequence that is that long.
    """

    def __init__(self, batch: int, total: int, chunk_size: int, cu_seqlens: torch.Tensor | None) -> None:
        self.batch, self.total, self.chunk_size = batch, total, chunk_size
        if cu_seqlens is None:
            self.lengths = [total] * batch
        else:
            ends = boundaries(cu_seqlens, total)
            self.lengths = [end - start for start, end in zip(ends, ends[1:], strict=False)]
        self.packed = cu_seqlens is not None
        self.chunks = [-(-length // chunk_size) for length in self.lengths]
        self.num_chunks = sum(self.chunks)
        self._rows = self._packed_rows() if self.packed else None

    def _packed_rows(self) -> torch.Tensor:
        """For each row of each chunk the step it holds, or ``total`` for a row past the end."""
        rows = torch.full((self.num_chunks * self.chunk_size,), self.total, dtype=torch.long)
        step = row = 0
        for length, chunks in zip(self.lengths, self.chunks, strict=True):
            rows[row : row + length] = torch.arange(step, step + length)
            step, row = step + length, row + chunks * self.chunk_size
        return rows

    def split(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """``[B, T, H, D]`` -> ``[M, H, C, D]`` in ``dtype``."""
        heads, dim = x.shape[2:]
        if self._rows is None:
            padding = self.chunks[0] * self.chunk_size - self.total
            x = F.pad(x.to(dtype), (0, 0, 0, 0, 0, padding))
        else:
            self._rows = self._rows.to(x.device)
            x = F.pad(x[0].to(dtype), (0, 0, 0, 0, 0, 1))[self._rows]
        return x.reshape(self.num_chunks, self.chunk_size, heads, dim).transpose(1, 2).contiguous()

    def join(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """``[M, H, C, D]`` -> ``[B, T, H, D]`` in ``dtype``."""
        heads, dim = x.shape[1], x.shape[3]
        x = x.transpose(1, 2)
        if self._rows is None:
            return x.reshape(self.batch, -1, heads, dim)[:, : self.total].to(dtype).contiguous()
        out = x.new_empty((1, self.total + 1, heads, dim), dtype=dtype)
        out[0, self._rows] = x.reshape(-1, heads, dim).to(dtype)
        return out[:, : self.total].contiguous()

    def steps(self, reverse: bool = False) -> Iterator[tuple[ChunkIndex, ChunkIndex]]:
        """Walk over time: the sequences still running, and the chunk of each at this step."""
        longest = max(self.chunks)
        order = range(longest - 1, -1, -1) if reverse else range(longest)
        if not self.packed:
            for t in order:
                yield slice(None), slice(t, None, longest)
            return
        chunks = torch.tensor(self.chunks)
        first = chunks.cumsum(0) - chunks
        for t in order:
            running = (chunks > t).nonzero()[:, 0]
            yield running, first[running] + t

    def correct(
        self,
        base: torch.Tensor,
        read: torch.Tensor,
        write: torch.Tensor,
        updates: torch.Tensor | None,
        decay: torch.Tensor | None,
        start: torch.Tensor | None,
        reverse: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Run ``x = base - read @ state; state = decay * state + write.T @ x + update`` over the chunks.

        Args:
            base: ``[M, H, C, V]``.
            read: ``[M, H, C, K]``.
            write: ``[M, H, C, K]``.
            updates: ``[M, H, K, V]``; none unless given.
            decay: ``[M, H, K]`` or ``[M, H, 1]``; no decay unless given.
            start: the first state of every sequence ``[N, H, K, V]``; zeros unless given.
            reverse: from the last chunk of every sequence to its first.

        Returns:
            x of every chunk (in place of ``base``), the state before each chunk, and after the last of every sequence.
        """
        states = base.new_empty(*base.shape[:2], read.shape[-1], base.shape[-1])
        state = self._first_state(states, start)
        for sequences, chunks in self.steps(reverse):
            before = state[sequences]
            states[chunks] = before
            x = base[chunks].sub_(read[chunks] @ before)
            base[chunks] = x
            update = write[chunks].transpose(-1, -2) @ x
            if updates is not None:
                update += updates[chunks]
            state[sequences] = update.add_(before if decay is None else before * decay[chunks].unsqueeze(-1))
        return base, states, state

    def _first_state(self, like: torch.Tensor, start: torch.Tensor | None) -> torch.Tensor:
        if start is None:
            return like.new_zeros(len(self.lengths), *like.shape[1:])
        return start.to(like.dtype, copy=True, memory_format=torch.contiguous_format)

    def scan(
        self, updates: torch.Tensor, decay: torch.Tensor | None, start: torch.Tensor | None, reverse: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run ``state = decay * state + update`` over the chunks of every sequence.

        Args:
            updates: ``[M, H, K, V]``.
            decay: ``[M, H, K]`` or ``[M, H, 1]``; no decay unless given.
            start: the first state of every sequence ``[N, H, K, V]``; zeros unless given.
            reverse: from the last chunk of every sequence to its first.

        Returns:
            The state before each chunk (in place of ``updates``), and after the last chunk of every sequence.
        """
        state = self._first_state(updates, start)
        for sequences, chunks in self.steps(reverse):
            update = updates[chunks].clone()
            updates[chunks] = state[sequences]
            if decay is None:
                state[sequences] = update.add_(state[sequences])
            else:
                state[sequences] = update.addcmul_(state[sequences], decay[chunks].unsqueeze(-1))
        return updates, state
