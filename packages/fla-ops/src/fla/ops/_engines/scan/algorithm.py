"""HGRN's recurrence in plain PyTorch: time is cut into chunks, and all chunks take the same step at once.

What a chunk adds to a state of zero, and how much it decays any other, gives the state before each chunk; from there
every chunk runs on its own. Where one step of all sequences is work enough, a sequence is one chunk.
"""

from __future__ import annotations

import torch

from fla.ops._shared.arguments import sum_dtype
from fla.ops._shared.chunks import ChunkLayout
from fla.utils.validation import count_sequences

#: Elements that a step should have for its arithmetic to outweigh the cost of calling PyTorch.
WIDE = 1 << 14


def chunk_size(x: torch.Tensor, cu_seqlens: torch.Tensor | None) -> int:
    """At least the root of T, where steps and chunks are as many; at most the (mean) length of a sequence."""
    batch, total, channels = x.shape
    root = 1 << (total.bit_length() // 2)
    mean = -(-batch * total // count_sequences(cu_seqlens, batch))
    return min(max(root, total * batch * channels // WIDE), mean)


class _Chunks:
    """The steps of a call cut into chunks: tensors ``[M, C, D]`` in the dtype of sums, no decay at the padding."""

    def __init__(self, x: torch.Tensor, g: torch.Tensor, cu_seqlens: torch.Tensor | None) -> None:
        self.layout = ChunkLayout(x.shape[0], x.shape[1], chunk_size(x, cu_seqlens), cu_seqlens)
        self.dtype = sum_dtype(x)
        self.x, self.decay = self.split(x), self.split(g).exp()
        self.steps = range(self.x.shape[1])
        self.uncut = set(self.layout.chunks) == {1}

    def split(self, x: torch.Tensor) -> torch.Tensor:
        return self.layout.split(x.unsqueeze(2), self.dtype).squeeze(1)

    def join(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        return self.layout.join(x.unsqueeze(1), dtype).squeeze(2)

    def starts(self, initial_state: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """The state before each chunk ``[M, D]``, and after each sequence where sequences are cut."""
        state = torch.zeros_like(self.x[:, 0])
        if not self.uncut:
            for c in self.steps:
                torch.addcmul(self.x[:, c], self.decay[:, c], state, out=state)
        return self._carry(state, initial_state, reverse=False)

    def ends(self, do: torch.Tensor, dfinal_state: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """The gradient of the state after each chunk, and before each sequence where sequences are cut."""
        dstate = torch.zeros_like(do[:, 0])
        if not self.uncut:
            for c in reversed(self.steps):
                dstate.add_(do[:, c]).mul_(self.decay[:, c])
        return self._carry(dstate, dfinal_state, reverse=True)

    def _carry(
        self, added: torch.Tensor, start: torch.Tensor | None, reverse: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """From what each chunk adds to a state of zero."""
        if self.uncut:
            return (added, added) if start is None else (start.to(self.dtype, copy=True),) * 2
        start = None if start is None else start[:, None, :, None]
        decay = self.decay.prod(1)[:, None]
        states, last = self.layout.scan(added[:, None, :, None], decay, start, reverse)
        return states[:, 0, :, 0], last[:, 0, :, 0]


def hgrn_fwd_torch(
    x: torch.Tensor, g: torch.Tensor, initial_state: torch.Tensor | None, cu_seqlens: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs ``[B, T, D]`` and final states ``[N, D]``."""
    chunks = _Chunks(x, g, cu_seqlens)
    state, last = chunks.starts(initial_state)
    h = torch.empty_like(chunks.x)
    for c in chunks.steps:
        state = torch.addcmul(chunks.x[:, c], chunks.decay[:, c], state, out=h[:, c])
    return chunks.join(h, x.dtype), state.clone() if chunks.uncut else last


def hgrn_bwd_torch(
    x: torch.Tensor,
    g: torch.Tensor,
    initial_state: torch.Tensor | None,
    do: torch.Tensor,
    dfinal_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    r"""Gradients of x, g and the initial states.

    .. math:: dh_t = do_t + u_{t+1}, \quad u_t = e^{g_t} dh_t, \quad dx_t = dh_t, \quad dg_t = u_t \odot h_{t-1}
    """
    chunks = _Chunks(x, g, cu_seqlens)
    before, dh, do_ = torch.empty_like(chunks.x), torch.empty_like(chunks.x), chunks.split(do)
    before[:, 0] = chunks.starts(initial_state)[0]
    for c in chunks.steps[:-1]:
        torch.addcmul(chunks.x[:, c], chunks.decay[:, c], before[:, c], out=before[:, c + 1])
    u, first = chunks.ends(do_, dfinal_state)
    for c in reversed(chunks.steps):
        torch.add(do_[:, c], u, out=dh[:, c])
        torch.mul(dh[:, c], chunks.decay[:, c], out=u)
    dg = before.mul_(chunks.decay).mul_(dh)
    return chunks.join(dh, x.dtype), chunks.join(dg, g.dtype), u if chunks.uncut else first
