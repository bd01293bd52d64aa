"""How decay enters a chunk, in plain PyTorch: what the chunked forms of the delta rules stand on.

A chunk of C steps reads the state at its start, writes to the state at its end, and scores pairs of its steps. Each of
the three has a factor e to the sum of the log decays of a span of steps: from the start up to and with the reader;
after the writer to the end; after the writer up to and with the reader. A reader ``before`` its own decay leaves that
out. The spans are summed themselves; no exponent is the difference of two sums that may be large.

One object holds the decays of all chunks ``[M, H, C, D]``. Its ``*_grad`` methods return the gradients of the operands
and keep those of the decays, which ``gradient`` hands over at the end.
"""

from __future__ import annotations

from typing import Protocol

import torch

#: Decays below the lowest are as good as a reset; a product of 0 and -inf in a sum would be NaN.
LOWEST = -1.0e4
#: A block is mild when no channel decays by more than this, in natural-log units, from its start to its end.
MILD_DECAY = 8.0


class ChunkDecay(Protocol):
    """The decays of all chunks; operands are ``[M, H, C, K]``, states ``[M, H, K, V]``."""

    total: torch.Tensor | None
    """The factor over a whole chunk ``[M, H, K]`` or ``[M, H, 1]``; None where nothing decays."""

    def read(self, x: torch.Tensor, before: bool = False) -> torch.Tensor:
        """What multiplies the state at the start of the chunk, from what multiplies the one that a step sees."""

    def write(self, y: torch.Tensor) -> torch.Tensor:
        """What is added to the state at the end of the chunk, from what a step adds."""

    def pairs(self, x: torch.Tensor, y: torch.Tensor, before: bool = False) -> torch.Tensor:
        """``[M, H, C, C]``: what reader i finds of writer j < i, and where not ``before`` of itself; zero above."""

    def read_grad(self, x: torch.Tensor, d: torch.Tensor, before: bool = False) -> torch.Tensor:
        """The gradient of x from that of ``read(x)``."""

    def write_grad(self, y: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        """The gradient of y from that of ``write(y)``."""

    def pairs_grad(
        self, x: torch.Tensor, y: torch.Tensor, d: torch.Tensor, before: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The gradients of x and y from that of ``pairs(x, y)``, which is zero where the pairs are."""

    def total_grad(self, states: torch.Tensor, dstates: torch.Tensor) -> None:
        """Keep the gradient of ``total``: ``dstates`` is that of ``total * states``."""

    def gradient(self) -> torch.Tensor | None:
        """The gradient of the log decays, in their shape."""


def chunk_decay(g: torch.Tensor | None) -> ChunkDecay:
    """The decays of chunks: none, ``[M, H, C, 1]`` the same for all channels, or ``[M, H, C, K]``."""
    if g is None:
        return NoDecay()
    return ScalarDecay(g.clamp(min=LOWEST)) if g.shape[-1] == 1 else ChannelDecay(g.clamp(min=LOWEST))


class NoDecay:
    """Nothing is forgotten."""

    total: torch.Tensor | None = None

    def read(self, x: torch.Tensor, before: bool = False) -> torch.Tensor:
        return x

    def write(self, y: torch.Tensor) -> torch.Tensor:
        return y

    def pairs(self, x: torch.Tensor, y: torch.Tensor, before: bool = False) -> torch.Tensor:
        return (x @ y.transpose(-1, -2)).tril_(-1 if before else 0)

    def read_grad(self, x: torch.Tensor, d: torch.Tensor, before: bool = False) -> torch.Tensor:
        return d

    def write_grad(self, y: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        return d

    def pairs_grad(
        self, x: torch.Tensor, y: torch.Tensor, d: torch.Tensor, before: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return d @ y, d.transpose(-1, -2) @ x

    def total_grad(self, states: torch.Tensor, dstates: torch.Tensor) -> None:
        pass

    def gradient(self) -> None:
        return None


class ScalarDecay:
    """One decay of all channels."""

    def __init__(self, g: torch.Tensor) -> None:
        size = g.shape[-2]
        step = torch.arange(size, device=g.device)
        after = (step[:, None] > step[None, :]).to(g.dtype)
        up_to = (step[None, :] <= step[:, None]).to(g.dtype)
        self._between = (up_to @ (g * after)).exp_()
        self._pre = g.cumsum(-2).exp_()
        self._suf = _sums_after(g).exp_()
        self.total: torch.Tensor | None = self._pre[..., -1, :]
        self._dpairs = torch.zeros_like(self._between)
        self._dpre, self._dsuf = torch.zeros_like(g), torch.zeros_like(g)

    def read(self, x: torch.Tensor, before: bool = False) -> torch.Tensor:
        return x * self._read_factor(before)

    def write(self, y: torch.Tensor) -> torch.Tensor:
        return y * self._suf

    def pairs(self, x: torch.Tensor, y: torch.Tensor, before: bool = False) -> torch.Tensor:
        return (x @ y.transpose(-1, -2)).mul_(_seen(self._between, before)).tril_(-1 if before else 0)

    def read_grad(self, x: torch.Tensor, d: torch.Tensor, before: bool = False) -> torch.Tensor:
        dx = d * self._read_factor(before)
        self._dpre += _dseen((x * dx).sum(-1, keepdim=True), before)
        return dx

    def write_grad(self, y: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        dy = d * self._suf
        self._dsuf += (y * dy).sum(-1, keepdim=True)
        return dy

    def pairs_grad(
        self, x: torch.Tensor, y: torch.Tensor, d: torch.Tensor, before: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        d = d * _seen(self._between, before)
        self._dpairs += _dseen(d * (x @ y.transpose(-1, -2)), before)
        return d @ y, d.transpose(-1, -2) @ x

    def total_grad(self, states: torch.Tensor, dstates: torch.Tensor) -> None:
        assert self.total is not None
        self._dpre[..., -1, :] += self.total * (states * dstates).sum((-1, -2)).unsqueeze(-1)

    def gradient(self) -> torch.Tensor:
        step = torch.arange(self._dpairs.shape[-1], device=self._dpairs.device)
        from_t_on = (step[None, :] >= step[:, None]).to(self._dpairs.dtype)
        # Step t lies between writer j and reader i where j < t <= i.
        across = (from_t_on @ self._dpairs).tril_(-1).sum(-1, keepdim=True)
        return across + _sums_from(self._dpre) + _sums_before(self._dsuf)

    def _read_factor(self, before: bool) -> torch.Tensor:
        return torch.cat([torch.ones_like(self._pre[..., :1, :]), self._pre[..., :-1, :]], -2) if before else self._pre


class ChannelDecay:
    """A decay of each channel: pairs by halving, down to blocks so mild that each of their factors may stand alone."""

    def __init__(self, g: torch.Tensor) -> None:
        self._size = g.shape[-2]
        self._mild = mild_block(g)
        self._g = g
        self._halves = [self._mild << level for level in range((self._size // self._mild).bit_length() - 1)]
        g_ = blocks(g, self._mild)
        self._rise = (g_.cumsum(-2) - g_[..., :1, :]) if self._mild > 1 else torch.zeros_like(g_)
        self._pre, self._suf = g.cumsum(-2), _sums_after(g)
        self.total: torch.Tensor | None = self._pre[..., -1, :].exp()
        self._dg = torch.zeros_like(g)

    def read(self, x: torch.Tensor, before: bool = False) -> torch.Tensor:
        return x * _seen(self._pre, before).exp()

    def write(self, y: torch.Tensor) -> torch.Tensor:
        return y * self._suf.exp()

    def pairs(self, x: torch.Tensor, y: torch.Tensor, before: bool = False) -> torch.Tensor:
        x_, y_ = self._mild_operands(x, y, before)
        pairs = x_ @ y_.transpose(-1, -2)
        for half in self._halves:
            e_late, e_early = self._factors(half, before)
            corner = (late(x, half) * e_late) @ (early(y, half) * e_early).transpose(-1, -2)
            pairs = pairs.unflatten(2, (-1, 2))
            top = torch.cat([pairs[:, :, :, 0], torch.zeros_like(corner)], -1)
            pairs = torch.cat([top, torch.cat([corner, pairs[:, :, :, 1]], -1)], -2)
        return pairs.squeeze(2).tril_(-1 if before else 0)

    def read_grad(self, x: torch.Tensor, d: torch.Tensor, before: bool = False) -> torch.Tensor:
        dx = d * _seen(self._pre, before).exp()
        self._dg += _sums_from(_dseen(x * dx, before))
        return dx

    def write_grad(self, y: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        dy = d * self._suf.exp()
        self._dg += _sums_before(y * dy)
        return dy

    def pairs_grad(
        self, x: torch.Tensor, y: torch.Tensor, d: torch.Tensor, before: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        x_, y_ = self._mild_operands(x, y, before)
        rise, dg = _seen(self._rise, before), blocks(self._dg, self._mild)
        d_ = torch.stack([d[..., i : i + self._mild, i : i + self._mild] for i in range(0, self._size, self._mild)], 2)
        dx, dy = (d_ @ y_).mul_(rise.exp()), (d_.transpose(-1, -2) @ x_).mul_(self._rise.neg().exp())
        if self._mild > 1:
            drise = _dseen(blocks(x, self._mild) * dx, before) - blocks(y, self._mild) * dy
            dg[..., 1:, :] += _sums_from(drise[..., 1:, :])
        dx, dy = dx.view(x.shape), dy.view(y.shape)
        for half in self._halves:
            e_late, e_early = self._factors(half, before)
            x_late, y_early = late(x, half) * e_late, early(y, half) * e_early
            rows = range(half, self._size, 2 * half)
            corner = torch.stack([d[..., i : i + half, i - half : i] for i in rows], 2)
            dx_late, dy_early = corner @ y_early, corner.transpose(-1, -2) @ x_late
            late(dx, half).addcmul_(dx_late, e_late)
            early(dy, half).addcmul_(dy_early, e_early)
            late(self._dg, half).add_(_sums_from(_dseen(x_late * dx_late, before)))
            early(self._dg, half).add_(_sums_before(y_early * dy_early))
        return dx, dy

    def total_grad(self, states: torch.Tensor, dstates: torch.Tensor) -> None:
        assert self.total is not None
        self._dg += (self.total * (states * dstates).sum(-1)).unsqueeze(-2)

    def gradient(self) -> torch.Tensor:
        return self._dg

    def _mild_operands(self, x: torch.Tensor, y: torch.Tensor, before: bool) -> tuple[torch.Tensor, torch.Tensor]:
        rise = _seen(self._rise, before)
        return blocks(x, self._mild) * rise.exp(), blocks(y, self._mild) * self._rise.neg().exp()

    def _factors(self, half: int, before: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """From the middle of each block of ``2 * half`` steps to its late readers; from its early writers to there."""
        e_late = _seen(late(self._g, half).cumsum(-2), before).exp_()
        return e_late, _sums_after(early(self._g, half)).exp_()


def mild_block(g: torch.Tensor) -> int:
    """The largest power-of-two block size at which every block of ``[M, H, C, K]`` is mild; 1 if none is."""
    decay, size, chunk = g.neg(), 1, g.shape[-2]
    if decay.sum(-2).max().item() <= MILD_DECAY:
        return chunk
    while size < chunk:
        decay = blocks(decay, 2).sum(-2)
        if not decay.max().item() <= MILD_DECAY:
            break
        size *= 2
    return size


def blocks(x: torch.Tensor, size: int) -> torch.Tensor:
    """``[M, H, C, K]`` -> ``[M, H, C / size, size, K]``."""
    return x.view(*x.shape[:2], -1, size, x.shape[-1])


def late(x: torch.Tensor, half: int) -> torch.Tensor:
    """The second halves of all blocks of ``2 * half`` rows."""
    return blocks(x, 2 * half)[..., half:, :]


def early(x: torch.Tensor, half: int) -> torch.Tensor:
    """The first halves of all blocks of ``2 * half`` rows."""
    return blocks(x, 2 * half)[..., :half, :]


def _seen(sums: torch.Tensor, before: bool) -> torch.Tensor:
    """The sums up to and with each row, or up to it."""
    return torch.cat([torch.zeros_like(sums[..., :1, :]), sums[..., :-1, :]], -2) if before else sums


def _dseen(gradient: torch.Tensor, before: bool) -> torch.Tensor:
    """The adjoint of :func:`_seen`."""
    if not before:
        return gradient
    return torch.cat([gradient[..., 1:, :], torch.zeros_like(gradient[..., :1, :])], -2)


def _sums_from(x: torch.Tensor) -> torch.Tensor:
    """For each row the sum over it and those after it."""
    return x.flip(-2).cumsum(-2).flip(-2)


def _sums_after(x: torch.Tensor) -> torch.Tensor:
    """For each row the sum over those after it."""
    return _dseen(_sums_from(x), True)


def _sums_before(x: torch.Tensor) -> torch.Tensor:
    """For each row the sum over those before it."""
    return _seen(x.cumsum(-2), True)
