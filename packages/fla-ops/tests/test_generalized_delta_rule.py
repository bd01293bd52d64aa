"""What is particular to the generalized delta rule and RWKV-7; what all families share is tested elsewhere."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import fla.ops.generalized_delta_rule.dplr as dplr
import fla.ops.generalized_delta_rule.iplr as iplr
from fla.ops._shared.cases import Shape, sequence_cases
from fla.ops.delta_rule import chunk_delta_rule
from fla.ops.generalized_delta_rule import (
    chunk_dplr_delta_rule,
    chunk_iplr_delta_rule,
    dplr_recurrence,
    fused_recurrent_dplr_delta_rule,
    fused_recurrent_iplr_delta_rule,
    iplr_recurrence,
)
from fla.ops.gla import chunk_gla
from fla.ops.rwkv7 import (
    chunk_rwkv7,
    fused_addcmul_rwkv7,
    fused_k_rwkv7,
    fused_mul_recurrent_rwkv7,
    fused_recurrent_rwkv7,
    gate_output_correction,
)
from fla.ops.rwkv7.spec import ALL, STRONG, bounded, decaying
from fla.utils.numerics import agreement, assert_close
from fla.utils.testing.conformance import check_case

TIGHT = agreement(torch.float64, 4096)


def operands(time: int = 70) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(time)
    q, k, a, b, gk = (torch.randn(2, time, 2, 8, generator=generator, dtype=torch.float64) for _ in range(5))
    v = torch.randn(2, time, 2, 6, generator=generator, dtype=torch.float64)
    a = F.normalize(a, dim=-1)
    return {"q": q, "k": k, "v": v, "a": -a, "b": a * b.sigmoid(), "gk": F.logsigmoid(gk)}


def without(inputs: dict[str, torch.Tensor], *names: str) -> dict[str, torch.Tensor]:
    return {name: x for name, x in inputs.items() if name not in names}


def rwkv(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {{"q": "r", "gk": "w"}.get(name, name): x for name, x in inputs.items()}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("title", ["the model's decay", "strong decay"])
def test_long_sequences_are_within_the_error_budget(title: str, dtype: torch.dtype) -> None:
    shape = Shape(1, 2000, 1, 64, 64, options=STRONG if title == "strong decay" else {})
    (case,) = sequence_cases(decaying(bounded(chunk_rwkv7)), ALL, {title: shape})
    check_case(case, "torch", "cpu", dtype, "reference")


def test_reading_at_minus_the_key_is_the_delta_rule() -> None:
    inputs = operands()
    k, beta = F.normalize(inputs["k"], dim=-1), inputs["b"].norm(dim=-1)
    expected = chunk_delta_rule(inputs["q"], k, inputs["v"], beta, output_final_state=True)
    written = k * beta.unsqueeze(-1)
    got = chunk_iplr_delta_rule(inputs["q"], written, inputs["v"], -k, written, output_final_state=True)
    for name, x, y in zip(("output", "state"), expected, got):
        assert_close(name, x, y, TIGHT)


def test_without_a_correction_it_is_gated_linear_attention() -> None:
    inputs = operands()
    expected = chunk_gla(*(inputs[name] for name in ("q", "k", "v", "gk")), output_final_state=True)
    none = torch.zeros_like(inputs["a"])
    got = chunk_dplr_delta_rule(**{**inputs, "a": none, "b": none}, output_final_state=True)
    for name, x, y in zip(("output", "state"), expected, got):
        assert_close(name, x, y, TIGHT)


@pytest.mark.parametrize("recurrent", [False, True])
def test_no_decay_is_a_decay_of_one(recurrent: bool) -> None:
    inputs = operands(12)
    with_decay, without_decay = (
        (fused_recurrent_dplr_delta_rule, fused_recurrent_iplr_delta_rule)
        if recurrent
        else (chunk_dplr_delta_rule, chunk_iplr_delta_rule)
    )
    expected, _ = with_decay(**{**inputs, "gk": torch.zeros_like(inputs["gk"])})
    assert_close("None", expected, with_decay(**{**inputs, "gk": None})[0], TIGHT)
    assert_close("identity", expected, without_decay(**without(inputs, "gk"))[0], TIGHT)


@pytest.mark.parametrize("time", [9, 40])
def test_reverse_runs_from_the_end(time: int) -> None:
    inputs = operands(time)
    o, state = fused_recurrent_dplr_delta_rule(**inputs, reverse=True, output_final_state=True)
    turned, expected = fused_recurrent_dplr_delta_rule(
        **{name: x.flip(1) for name, x in inputs.items()}, output_final_state=True
    )
    assert_close("output", turned.flip(1), o, TIGHT)
    assert state is not None
    assert_close("state", expected, state, TIGHT)


def test_the_recurrences_have_heads_before_time() -> None:
    inputs = operands(10)
    *turned, gk = (x.transpose(1, 2) for x in inputs.values())
    expected, state = fused_recurrent_dplr_delta_rule(**inputs, output_final_state=True)
    o, last = dplr_recurrence(*turned, gk)
    assert_close("output", expected, o.transpose(1, 2), TIGHT)
    assert_close("state", state, last, TIGHT)
    expected, _ = fused_recurrent_iplr_delta_rule(**without(inputs, "gk"))
    assert_close("identity", expected, iplr_recurrence(*turned)[0].transpose(1, 2), TIGHT)


def test_rwkv7_is_the_generalized_delta_rule() -> None:
    inputs = operands()
    expected, state = chunk_dplr_delta_rule(**inputs, scale=1.0, output_final_state=True)
    renamed = rwkv(inputs)
    for function, options in (
        (chunk_rwkv7, {"output_final_state": True}),
        (fused_recurrent_rwkv7, {"scale": 1.0}),
    ):
        o, last = function(**renamed, **options)
        assert_close("output", expected, o, TIGHT)
        assert_close("state", state, last, TIGHT)
    kk, strength = -renamed["a"], renamed["b"] / -renamed["a"]
    o, nothing = fused_mul_recurrent_rwkv7(**without(renamed, "a", "b"), kk=kk, a=strength)
    assert_close("output", expected, o, 1e-10)
    assert nothing is None


def test_options_that_promise_change_nothing() -> None:
    inputs = operands(20)
    options = {"safe_gate": True, "chunk_size": 32, "disable_recompute": True, "lower_bound": -5.0}
    assert torch.equal(chunk_dplr_delta_rule(**inputs)[0], chunk_dplr_delta_rule(**inputs, **options)[0])
    assert torch.equal(chunk_rwkv7(**rwkv(inputs))[0], chunk_rwkv7(**rwkv(inputs), **options)[0])


def test_the_defaults_that_other_projects_rely_on() -> None:
    for function, scale, output_final_state in (
        (chunk_rwkv7, 1.0, False),
        (fused_recurrent_rwkv7, None, True),
        (fused_mul_recurrent_rwkv7, 1.0, False),
        (chunk_dplr_delta_rule, None, False),
    ):
        parameters = inspect.signature(function).parameters
        assert (parameters["scale"].default, parameters["output_final_state"].default) == (scale, output_final_state)
    assert dplr.chunk_dplr_delta_rule is chunk_dplr_delta_rule
    assert iplr.fused_recurrent_iplr_delta_rule is fused_recurrent_iplr_delta_rule


def test_the_small_steps_do_what_they_say() -> None:
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x, delta, shares = drawn(2, 5, 12), drawn(2, 5, 12), [drawn(1, 1, 12) for _ in range(5)]
    *mixed, nothing = fused_addcmul_rwkv7(x, delta, *shares)
    assert nothing is None
    for share, got in zip(shares, mixed):
        assert_close("mixture", x + delta * share, got, TIGHT)
    k, a, ka = drawn(2, 5, 12), drawn(2, 5, 12), drawn(12)
    assert_close("k", k + k * (a - 1) * ka, fused_k_rwkv7(k, a, ka), TIGHT)
    o, r, k, v, r_k, g = (
        drawn(2, 5, 6),
        drawn(2, 5, 2, 4),
        drawn(2, 5, 2, 4),
        drawn(2, 5, 2, 3),
        drawn(2, 4),
        x[..., :6],
    )
    bonus = torch.einsum("bthk,bthk,hk,bthv->bthv", r, k, r_k, v).flatten(-2)
    assert_close("gated", (o + bonus) * g, gate_output_correction(o, r, k, r_k, v, g), TIGHT)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"a": torch.zeros(2, 10, 2, 8)}, TypeError, "a: expected torch.float64 as q, got torch.float32"),
        ({"b": torch.zeros(2, 10, 2, 7)}, ValueError, r"b: expected shape \[B, T, H, K\].*K=8.*\[2, 10, 2, 7\]"),
        ({"gk": torch.zeros(2, 10, 2)}, ValueError, r"gk: expected shape \[B, T, H, K\].*\[2, 10, 2\]"),
        ({"gk": torch.zeros(2, 10, 2, 8).long()}, TypeError, "gk.*int64"),
        ({"initial_state": torch.zeros(2, 2, 6, 8)}, ValueError, r"initial_state.*K=8.*\[2, 2, 6, 8\]"),
        ({"cu_seqlens": torch.tensor([0, 10])}, ValueError, "cu_seqlens.*B=2"),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else "",
)
def test_bad_input_is_refused_by_name(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    for function in (chunk_dplr_delta_rule, fused_recurrent_dplr_delta_rule):
        with pytest.raises(error, match=message):
            function(**{**operands(10), **changes})


def test_bad_input_of_rwkv7_is_refused_by_its_names() -> None:
    inputs = rwkv(operands(10))
    with pytest.raises(TypeError, match="w: expected a tensor.*NoneType"):
        chunk_rwkv7(**{**inputs, "w": None})
    with pytest.raises(TypeError, match="b: expected torch.float64 as r"):
        fused_recurrent_rwkv7(**{**inputs, "b": inputs["b"].float()})
    with pytest.raises(ValueError, match=r"kk: expected shape .*H=2.*\[2, 10, 1, 8\]"):
        fused_mul_recurrent_rwkv7(**without(inputs, "b"), kk=inputs["a"][:, :, :1])
    with pytest.raises(ValueError, match=r"ka: expected shape \[D\] with D=8, got \[3\]"):
        fused_k_rwkv7(inputs["k"].flatten(1, 2), inputs["a"].flatten(1, 2), torch.zeros(3))
