"""HGRN's recurrence alone: its errors, its registered ops, extremes, and what the torch backend costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from fla.ops._engines.scan.ops import hgrn_bwd, hgrn_fwd
from fla.ops._engines.scan.tiles import ScanTile
from fla.ops.hgrn import chunk_hgrn, fused_recurrent_hgrn, naive_recurrent_hgrn
from fla.utils.numerics import assert_close
from fla.utils.registration import registered


def inputs(batch: int = 2, time: int = 16, channels: int = 12, decay: float = 1.0) -> dict[str, torch.Tensor]:
    x, g = torch.randn(2, batch, time, channels)
    return {"x": x, "g": F.logsigmoid(g) * decay}


BAD_INPUT: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"x": torch.randn(2, 16, 2, 6)}, ValueError, r"x: expected shape \[B, T, D\].*got \[2, 16, 2, 6\]"),
    ({"x": torch.ones(2, 16, 12, dtype=torch.int32)}, TypeError, "x: expected float32, .*, got torch.int32"),
    ({"g": torch.randn(2, 16, 1)}, ValueError, r"g: expected shape \[B, T, D\] with .*D=12, got \[2, 16, 1\]"),
    ({"g": None}, TypeError, "g: expected a tensor"),
    ({"g": torch.zeros(2, 16, 12, dtype=torch.int32)}, TypeError, "g: expected a floating dtype, got torch.int32"),
    ({"initial_state": torch.zeros(1, 12)}, ValueError, r"initial_state: .*N=2.*got \[1, 12\]"),
    ({"initial_state": torch.zeros(2, 12, device="meta")}, ValueError, "initial_state: expected on cpu as x"),
    ({"cu_seqlens": torch.tensor([0, 16])}, ValueError, "cu_seqlens: packed sequences need a batch of 1, got B=2"),
    ({"cu_seqlens": [0, 16]}, TypeError, "cu_seqlens: expected an int32 or int64 tensor"),
    ({"backend": "triton"}, ValueError, "backend='triton'"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD_INPUT, ids=[m[:40] for _, _, m in BAD_INPUT])
def test_bad_input_is_named(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        chunk_hgrn(**{**inputs(), **change})


def test_empty_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match="dimension T is 0"):
        fused_recurrent_hgrn(**inputs(time=0))


@pytest.mark.parametrize("decay", [0.0, 1e-3, 8.0, 1e4])
@pytest.mark.parametrize("channels", [4, 20000])
def test_decays_of_any_strength_are_finite_and_right(decay: float, channels: int) -> None:
    leaves = [x.double().requires_grad_() for x in inputs(1, 33, channels, decay).values()]
    o, expected = chunk_hgrn(*leaves)[0], naive_recurrent_hgrn(*leaves)[0]
    assert_close("agreement", expected, o, 1e-12, 0.0)
    for a, b in zip(torch.autograd.grad(expected.sum(), leaves), torch.autograd.grad(o.sum(), leaves)):
        assert torch.isfinite(b).all()
        assert_close("gradient", a, b, 1e-12, 1e-300)


def test_a_reset_is_a_decay_of_minus_infinity() -> None:
    drawn = inputs(1, 70)
    drawn["g"][:, 33] = -torch.inf
    x, g = (y.requires_grad_() for y in drawn.values())
    o, _ = chunk_hgrn(x, g)
    alone, _ = chunk_hgrn(x[:, 33:], g[:, 33:])
    assert_close("agreement", alone, o[:, 33:], 1e-6, 0.0)
    dx, dg = torch.autograd.grad(o[:, 33:].sum(), (x, g))
    assert not dx[:, :33].any()
    assert not dg[:, :34].any()


def test_a_gate_may_be_more_precise_than_the_input() -> None:
    x, g = inputs(1, 300).values()
    exact, _ = naive_recurrent_hgrn(x.bfloat16().double(), g.double())
    o, _ = chunk_hgrn(x.bfloat16(), g)
    assert o.dtype == torch.bfloat16
    assert_close("agreement", exact, o, 2**-8, 0.0)


def test_opcheck() -> None:
    x, g = inputs(1, 8).values()
    state, ends, do, empty = torch.randn(2, 12), torch.tensor([0, 3, 8]), torch.randn_like(x), x.new_empty(0)
    torch.library.opcheck(registered(hgrn_fwd), (x, g, state, ends, "torch", True))
    torch.library.opcheck(registered(hgrn_bwd), (x, g, None, empty, do, state, ends, "torch"))


def test_memory_of_the_torch_backend_is_linear_in_time() -> None:
    def allocated(time: int) -> int:
        leaves = [x.requires_grad_() for x in inputs(1, time, 32).values()]
        with torch.profiler.profile(profile_memory=True) as profile:
            chunk_hgrn(*leaves)[0].sum().backward()
        return sum(max(event.self_cpu_memory_usage, 0) for event in profile.key_averages())

    assert allocated(8192) < 2.2 * allocated(4096)


def test_inputs_are_left_as_they_were() -> None:
    leaves = [x.requires_grad_() for x in inputs().values()]
    state = torch.randn(2, 12)
    before = [x.detach().clone() for x in (*leaves, state)]
    o, end = chunk_hgrn(*leaves, initial_state=state, output_final_state=True)
    cotangents = torch.randn_like(o), torch.randn_like(end)
    kept = [x.clone() for x in cotangents]
    torch.autograd.grad((o, end), leaves, cotangents)
    assert all(map(torch.equal, before, (*leaves, state)))
    assert all(map(torch.equal, kept, cotangents))


@pytest.mark.parametrize(
    ("total", "programs", "segment"), [(1, 1, 32), (256, 1, 256), (4096, 128, 4096), (4096, 1, 256), (65536, 8, 1024)]
)
def test_time_is_cut_only_where_programs_are_few(total: int, programs: int, segment: int) -> None:
    assert ScanTile(32, 64, 1, 3).segment(total, programs) == segment
