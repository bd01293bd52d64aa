"""Gated linear attention alone: its errors, its registered ops, extremes, and what the torch backend costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from fla.ops._engines.channel_decay.ops import chunk_gla_bwd, chunk_gla_fwd
from fla.ops._engines.decay_steps.ops import fused_recurrent_gla_bwd, fused_recurrent_gla_fwd
from fla.ops.gla import chunk_gla, fused_recurrent_gla, naive_recurrent_gla
from fla.utils.numerics import assert_close
from fla.utils.registration import registered


def inputs(
    batch: int = 2, time: int = 16, heads: int = 2, key_dim: int = 8, value_dim: int = 12, decay: float = 1.0
) -> dict[str, torch.Tensor]:
    drawn = {n: torch.randn(batch, time, heads, d) for n, d in (("q", key_dim), ("k", key_dim), ("v", value_dim))}
    return drawn | {"g": F.logsigmoid(torch.randn(batch, time, heads, key_dim)) * decay}


BAD_INPUT: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"q": torch.randn(2, 16, 8)}, ValueError, r"q: expected shape \[B, T, H, K\].*got \[2, 16, 8\]"),
    ({"k": torch.randn(2, 16, 2, 9)}, ValueError, r"k: expected shape \[B, T, H, K\] with .*K=8, got \[2, 16, 2, 9\]"),
    ({"v": torch.randn(2, 15, 2, 12)}, ValueError, r"v: expected shape .*T=16.*, got \[2, 15, 2, 12\]"),
    ({"g": None}, TypeError, "g: expected a tensor"),
    ({"g": torch.zeros(2, 16, 2)}, ValueError, "g: expected shape"),
    ({"g": torch.zeros(2, 16, 2, 8, dtype=torch.int32)}, TypeError, "g: expected a floating dtype, got torch.int32"),
    ({"k": torch.randn(2, 16, 2, 8).half()}, TypeError, "k: expected torch.float32 as q, got torch.float16"),
    ({"q": "queries"}, TypeError, "q: expected a tensor"),
    ({"initial_state": torch.zeros(1, 2, 8, 12)}, ValueError, r"initial_state: .*N=2.*got \[1, 2, 8, 12\]"),
    ({"initial_state": torch.zeros(2, 2, 12, 8)}, ValueError, r"initial_state: expected shape \[N, H, K, V\]"),
    ({"initial_state": torch.zeros(2, 2, 8, 12, device="meta")}, ValueError, "initial_state: expected on cpu as q"),
    ({"cu_seqlens": torch.tensor([0, 16])}, ValueError, "cu_seqlens: packed sequences need a batch of 1, got B=2"),
    ({"cu_seqlens": [0, 16]}, TypeError, "cu_seqlens: expected an int32 or int64 tensor"),
    ({"backend": "cuda"}, ValueError, "backend: expected one of triton, torch, reference"),
    ({"backend": "triton"}, ValueError, "backend='triton'"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD_INPUT, ids=[m[:40] for _, _, m in BAD_INPUT])
def test_bad_input_is_named(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        chunk_gla(**{**inputs(), **change})


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        ([1, 16], "start at 0 and end at T=16, got 1..16"),
        ([0, 17], "end at T=16, got 0..17"),
        ([0, 9, 8, 16], "must not fall, got 9 then 8"),
    ],
)
def test_bad_boundaries_are_named(ends: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chunk_gla(**inputs(batch=1), cu_seqlens=torch.tensor(ends))
    with pytest.raises(ValueError, match=message):
        chunk_gla(**inputs(batch=1), cu_seqlens=torch.tensor([0, 16]), cu_seqlens_cpu=torch.tensor(ends))


def test_empty_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match="dimension T is 0"):
        chunk_gla(**inputs(time=0))


def test_unknown_arguments_are_refused() -> None:
    with pytest.raises(TypeError, match="unexpected keyword"):
        chunk_gla(**inputs(), head_first=True)  # type: ignore[call-arg]


def test_the_process_backend_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fla.utils.backends.PROCESS_BACKEND", "triton")
    with pytest.raises(ValueError, match="backend='triton'"):
        chunk_gla(**inputs())


@pytest.mark.parametrize("decay", [0.0, 1e-3, 8.0, 30.0, 1e4])
def test_decays_of_any_strength_are_finite_and_right(decay: float) -> None:
    leaves = {n: x.double().requires_grad_() for n, x in inputs(1, 130, decay=decay).items()}
    q, k, v, g = leaves.values()
    o, _ = chunk_gla(q, k, v, g)
    expected, _ = naive_recurrent_gla(q, k, v, g)
    assert_close("agreement", expected, o, 1e-12, 0.0)
    for a, b in zip(
        torch.autograd.grad(expected.sum(), leaves.values()), torch.autograd.grad(o.sum(), leaves.values())
    ):
        assert torch.isfinite(b).all()
        assert_close("gradient", a, b, 1e-12, 1e-300)


def test_a_reset_is_a_decay_of_minus_infinity() -> None:
    drawn = inputs(1, 70)
    drawn["g"][:, 33] = -torch.inf
    o, _ = chunk_gla(**drawn)
    alone, _ = chunk_gla(**{n: x[:, 33:] for n, x in drawn.items()})
    assert_close("agreement", alone, o[:, 33:], 1e-6, 0.0)


def test_chunk_and_recurrent_agree() -> None:
    drawn = {n: x.double() for n, x in inputs().items()}
    o, state = chunk_gla(**drawn, output_final_state=True)
    drawn["gk"] = drawn.pop("g")
    o_recurrent, state_recurrent = fused_recurrent_gla(**drawn, output_final_state=True)
    assert_close("agreement", o, o_recurrent, 1e-12, 0.0)
    assert_close("agreement", state, state_recurrent, 1e-12, 0.0)


def test_opcheck() -> None:
    q, k, v, g = inputs(1, 8).values()
    state, ends, do = torch.randn(2, 2, 8, 12), torch.tensor([0, 3, 8]), torch.randn_like(v)
    empty = q.new_empty(0)
    torch.library.opcheck(registered(chunk_gla_fwd), (q, k, v, g, None, state, ends, 1.0, "torch", True))
    torch.library.opcheck(registered(chunk_gla_bwd), (q, k, v, g, None, None, empty, do, state, ends, 1.0, "torch"))
    torch.library.opcheck(
        registered(fused_recurrent_gla_fwd), (q, k, v, None, g, None, None, state, ends, 1.0, False, "torch")
    )
    torch.library.opcheck(
        registered(fused_recurrent_gla_bwd), (q, k, v, None, g, v, None, None, do, state, ends, 1.0, False, "torch")
    )


def test_memory_of_the_torch_backend_is_linear_in_time() -> None:
    def allocated(time: int) -> int:
        leaves = [x.requires_grad_() for x in inputs(1, time, 1, 32, 32, decay=1 / 16).values()]
        with torch.profiler.profile(profile_memory=True) as profile:
            chunk_gla(*leaves)[0].sum().backward()
        return sum(max(event.self_cpu_memory_usage, 0) for event in profile.key_averages())

    assert allocated(4096) < 2.2 * allocated(2048)


def test_inputs_are_left_as_they_were() -> None:
    leaves = {n: x.requires_grad_() for n, x in inputs().items()}
    before = {n: x.detach().clone() for n, x in leaves.items()}
    state = torch.randn(2, 2, 8, 12)
    state_before = state.clone()
    chunk_gla(**leaves, initial_state=state)[0].sum().backward()
    assert torch.equal(state, state_before)
    assert all(torch.equal(before[n], leaves[n]) for n in leaves)


def test_packed_inference_mode() -> None:
    with torch.inference_mode():
        ends = torch.tensor([0, 5, 16])
        drawn = inputs(1)
        o, _ = chunk_gla(**drawn, cu_seqlens=ends)
        alone, _ = chunk_gla(**{n: x[:, 5:] for n, x in drawn.items()})
    assert_close("agreement", alone, o[:, 5:], 1e-5, 0.0)
