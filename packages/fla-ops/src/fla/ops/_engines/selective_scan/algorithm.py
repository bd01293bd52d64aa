"""The selective scan in plain PyTorch: span after span, what need not be done step by step for a span at once.

Memory for states is that of one span of all sequences, and of one state for each span.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from fla.ops._engines.selective_scan.operands import Operands, new_states
from fla.ops._engines.selective_scan.tiles import SPANS
from fla.ops._shared.arguments import sum_dtype
from fla.ops._shared.chunks import ChunkIndex, ChunkLayout


class _Scan:
    """A call cut into spans: ``[M, G, C, P]`` over channels and ``[M, G, C, N]`` over states, in the dtype of sums."""

    def __init__(self, operands: Operands, cu_seqlens: torch.Tensor | None, softplus: bool) -> None:
        u = operands.u
        self.operands, self.dtype = operands, sum_dtype(u)
        self.layout = ChunkLayout(u.shape[0], u.shape[1], SPANS["torch"], cu_seqlens)
        self.u = self.split(u)
        raw = operands.delta.to(self.dtype)
        if operands.bias is not None:
            raw = raw + operands.bias.to(self.dtype)
        self.raw = raw if softplus else None
        # Past the end of a sequence steps are 0, and a state stays as it is.
        self.step = self.split(F.softplus(raw) if softplus else raw)
        self.input = self.step * self.u
        self.B, self.C = (self.layout.split(x, self.dtype) for x in (operands.B, operands.C))
        rates = operands.A.to(self.dtype).unflatten(0, (operands.groups, -1))
        self.rates = rates.transpose(1, 2).contiguous().unsqueeze(1)

    def split(self, x: torch.Tensor) -> torch.Tensor:
        """``[B, T, D]`` -> ``[M, G, C, P]``."""
        return self.layout.split(x.unflatten(-1, (self.operands.groups, -1)), self.dtype)

    def join(self, x: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
        """``[M, G, C, P]`` -> ``[B, T, D]``."""
        return self.layout.join(x, dtype or self.dtype).flatten(2)

    def first(self, state: torch.Tensor | None) -> torch.Tensor:
        """``[S, D, N]`` -> ``[S, G, N, P]``; zeros where there is none."""
        groups, states = self.operands.groups, self.operands.states
        if state is None:
            return self.u.new_zeros(len(self.layout.lengths), groups, states, self.u.shape[-1])
        grouped: torch.Tensor = state.to(self.dtype).unflatten(1, (groups, -1))
        return grouped.transpose(-1, -2).clone()

    @staticmethod
    def last(state: torch.Tensor) -> torch.Tensor:
        """``[S, G, N, P]`` -> ``[S, D, N]``."""
        return state.transpose(-1, -2).flatten(1, 2).contiguous()

    def decay(self, spans: ChunkIndex) -> torch.Tensor:
        """``[M, G, C, N, P]``."""
        exponent: torch.Tensor = self.step[spans].unsqueeze(-2) * self.rates
        return exponent.exp_()

    def run(self, spans: ChunkIndex, decay: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        """The state after every step of spans that start from ``state``."""
        states: torch.Tensor = self.input[spans].unsqueeze(-2) * self.B[spans].unsqueeze(-1)
        for h, a in zip(states.unbind(2), decay.unbind(2)):
            state = h.addcmul_(a, state)
        return states

    def read(self, spans: ChunkIndex, states: torch.Tensor) -> torch.Tensor:
        """``h C`` after every step ``[M, G, C, P]``."""
        return (self.C[spans].unsqueeze(-2) @ states).squeeze(-2)


def selective_scan_fwd_torch(
    operands: Operands,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    softplus: bool,
    save_states: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Outputs ``[B, T, D]``, last states ``[S, D, N]`` and the state before each span (empty unless saved)."""
    scan = _Scan(operands, cu_seqlens, softplus)
    saved = new_states(operands, cu_seqlens, "torch") if save_states else scan.u.new_empty(0)
    state, outputs = scan.first(initial_state), torch.empty_like(scan.u)
    for sequences, spans in scan.layout.steps():
        before = state[sequences]
        if save_states:
            saved[: scan.layout.num_chunks][spans] = before
        states = scan.run(spans, scan.decay(spans), before)
        outputs[spans] = scan.read(spans, states)
        state[sequences] = states[:, :, -1]
    y = _skip(scan.join(outputs), operands)
    if operands.z is not None:
        y = y * F.silu(operands.z.to(scan.dtype))
    return y.to(operands.u.dtype), scan.last(state), saved


def selective_scan_bwd_torch(
    operands: Operands,
    saved: torch.Tensor,
    dy: torch.Tensor,
    dlast_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    softplus: bool,
) -> tuple[torch.Tensor, ...]:
    r"""Gradients of the operands and the initial states.

    .. math:: dh_t = C_t\, dy_t + e_{t+1}, \qquad e_t = e^{\delta_t A} \odot dh_t
    """
    u, delta, A, B, C, skip, z, bias = operands
    scan = _Scan(operands, cu_seqlens, softplus)
    gate = None if z is None else z.to(scan.dtype)
    dread = dy.to(scan.dtype) if gate is None else dy * F.silu(gate)
    dread_spans = scan.split(dread)
    dinput, dstep, dB, dC = (torch.empty_like(x) for x in (scan.u, scan.u, scan.B, scan.C))
    outputs = None if gate is None else torch.empty_like(scan.u)
    drates, dstate = torch.zeros_like(scan.rates), scan.first(dlast_state)
    for sequences, spans in scan.layout.steps(reverse=True):
        decay, before = scan.decay(spans), saved[: scan.layout.num_chunks][spans]
        states = scan.run(spans, decay, before)
        dC[spans] = (states @ dread_spans[spans].unsqueeze(-1)).squeeze(-1)
        if outputs is not None:
            outputs[spans] = scan.read(spans, states)
        dstates = scan.C[spans].unsqueeze(-1) * dread_spans[spans].unsqueeze(-2)
        carried = dstate[sequences]
        for dh, a in zip(reversed(dstates.unbind(2)), reversed(decay.unbind(2))):
            carried = dh.add_(carried).mul(a)
        dstate[sequences] = carried
        dB[spans] = (dstates @ scan.input[spans].unsqueeze(-1)).squeeze(-1)
        dinput[spans] = (scan.B[spans].unsqueeze(-2) @ dstates).squeeze(-2)
        dexponent = dstates.mul_(decay)
        dexponent[:, :, 1:] *= states[:, :, :-1]
        dexponent[:, :, 0] *= before
        dstep[spans] = (dexponent * scan.rates).sum(-2)
        drates += (dexponent.mul_(scan.step[spans].unsqueeze(-2))).sum((0, 2)).unsqueeze(1)
    dstep += dinput * scan.u
    du = scan.join(dinput * scan.step)
    if skip is not None:
        du = du + dread * skip.to(scan.dtype)
    ddelta = scan.join(dstep)
    if scan.raw is not None:
        ddelta = ddelta * scan.raw.sigmoid()
    dz = u.new_empty(0)
    if z is not None and gate is not None and outputs is not None:
        sigmoid = gate.sigmoid()
        dz = (dy * _skip(scan.join(outputs), operands) * sigmoid * (1 + gate * (1 - sigmoid))).to(z.dtype)
    return (
        du.to(u.dtype),
        ddelta.to(delta.dtype),
        scan.last(drates.transpose(0, 1))[0].to(A.dtype),
        scan.layout.join(dB, B.dtype),
        scan.layout.join(dC, C.dtype),
        u.new_empty(0) if skip is None else (dread * u).sum((0, 1)).to(skip.dtype),
        dz,
        u.new_empty(0) if bias is None else ddelta.sum((0, 1)).to(bias.dtype),
        scan.last(dstate),
    )


def _skip(y: torch.Tensor, operands: Operands) -> torch.Tensor:
    return y if operands.skip is None else torch.addcmul(y, operands.u.to(y.dtype), operands.skip.to(y.dtype))
