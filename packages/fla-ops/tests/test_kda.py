"""What is particular to Kimi delta attention and Comba; what all families share is tested elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from fla.ops.comba import chunk_comba, fused_recurrent_comba
from fla.ops.delta_rule import chunk_delta_rule
from fla.ops.gated_delta_rule import chunk_gated_delta_rule, fused_gdn_gate
from fla.ops.kda import chunk_kda, fused_kda_gate, fused_recurrent_kda, naive_kda_gate, naive_kda_lowerbound_gate
from fla.utils.numerics import assert_close

GATE = {"use_gate_in_kernel": True}


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def operands() -> dict[str, torch.Tensor]:
    g = F.logsigmoid(draw(2, 40, 4, 8))
    k = F.normalize(draw(2, 40, 2, 8), dim=-1)
    return {"q": draw(2, 40, 2, 8).flip(1), "k": k, "v": draw(2, 40, 4, 6), "g": g, "beta": draw(2, 40, 4).sigmoid()}


def test_channels_that_decay_alike_are_the_gated_delta_rule() -> None:
    inputs = operands()
    inputs["g"] = inputs["g"][..., 0]
    expected, _ = chunk_gated_delta_rule(**inputs)
    inputs["g"] = inputs["g"].unsqueeze(-1).expand(-1, -1, -1, 8)
    assert_close("output", expected, chunk_kda(**inputs)[0], 1e-12)


@pytest.mark.parametrize("function", [chunk_kda, fused_recurrent_kda])
def test_the_gate_in_the_op_is_the_gate(function: Any) -> None:
    inputs, A_log, dt_bias = operands(), draw(4), draw(32)
    for lower_bound in (None, -3.0):
        inside, _ = function(**inputs, A_log=A_log, dt_bias=dt_bias, lower_bound=lower_bound, **GATE)
        g = fused_kda_gate(inputs["g"], A_log, dt_bias, lower_bound, torch.float64)
        assert_close("output", function(**{**inputs, "g": g})[0], inside, 1e-12)


def test_gates_are_their_formulas_in_every_shape_of_their_parameters() -> None:
    g, A_log, dt_bias = draw(3, 4, 8).requires_grad_(), draw(4), draw(4, 8)
    rate = A_log.exp()[:, None]
    free = fused_kda_gate(g, A_log.view(1, 1, 4, 1), dt_bias.flatten(), output_dtype=torch.float64)
    assert_close("free", -rate * (1 + (g + dt_bias).exp()).log(), free, 1e-12)
    assert_close("channels alike", fused_gdn_gate(g[..., 0], A_log), fused_kda_gate(g, A_log)[..., 0], 1e-6)
    bounded = fused_kda_gate(g, A_log, dt_bias, -5.0, torch.float64)
    assert_close("bounded", -5 / (1 + (-rate * (g + dt_bias)).exp()), bounded, 1e-12)
    assert bounded.min() >= -5
    assert torch.equal(naive_kda_gate(g, A_log, dt_bias, torch.float64), free)
    assert_close("rate 1", -5 * g.sigmoid(), naive_kda_lowerbound_gate(g, output_dtype=torch.float64), 1e-12)
    assert fused_kda_gate(g.bfloat16(), A_log).dtype == torch.float32


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"return_intermediate_states": True}, ValueError, "return_intermediate_states: expected False"),
        ({"A_log": torch.zeros(4)}, ValueError, "A_log, dt_bias: used with use_gate_in_kernel=True only"),
        ({"lower_bound": -5.0}, ValueError, "lower_bound: used with"),
        ({"safe_gate": True, **GATE}, ValueError, "lower_bound: expected.*safe_gate.*None"),
        ({"lower_bound": 5.0, **GATE}, ValueError, "lower_bound: expected a log decay below 0, got 5.0"),
        (GATE, ValueError, "A_log: expected a tensor.*None"),
        ({"A_log": torch.zeros(3), **GATE}, ValueError, r"A_log: expected.*HV=4.*\[3\]"),
        ({"A_log": torch.zeros(4), "dt_bias": torch.zeros(4), **GATE}, ValueError, r"dt_bias.*HV=4, K=8.*\[4\]"),
        ({"allow_neg_eigval": True}, ValueError, "allow_neg_eigval.*use_beta_sigmoid_in_kernel"),
        ({"g": torch.zeros(2, 40, 4)}, ValueError, r"g: expected shape \[B, T, HV, K\].*\[2, 40, 4\]"),
        ({"g": None}, TypeError, "g: expected a tensor.*NoneType"),
        ({"beta": None}, TypeError, "beta: expected a tensor.*NoneType"),
        ({"chunk_size": 64}, TypeError, "chunk_size"),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else "",
)
def test_bad_input_is_refused_by_name(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        chunk_kda(**{**operands(), **changes})


def test_what_is_promised_of_a_final_decay_changes_nothing() -> None:
    inputs = operands()
    promised, _ = chunk_kda(**inputs, safe_gate=True, lower_bound=-5.0, disable_recompute=True)
    assert torch.equal(chunk_kda(**inputs)[0], promised)


@pytest.mark.parametrize("function", [chunk_comba, fused_recurrent_comba])
def test_comba_without_decay_that_reads_at_its_keys_is_the_delta_rule(function: Any) -> None:
    inputs = operands()
    expected, state = chunk_delta_rule(**{n: x for n, x in inputs.items() if n != "g"}, output_final_state=True)
    inputs["g"] = torch.zeros_like(inputs["beta"])
    o, end = function(**inputs, p=inputs["k"].clone(), output_final_state=True)
    assert_close("output", expected, o, 1e-12)
    assert_close("state", state, end, 1e-12)


def test_comba_reads_before_it_decays() -> None:
    inputs = operands()
    inputs["g"] = torch.full_like(inputs["beta"], -100.0)
    inputs["p"] = draw(2, 40, 2, 8)
    first, last = ({name: x[:, steps] for name, x in inputs.items()} for steps in (slice(0, 1), slice(1, 2)))
    _, state = chunk_comba(**first, output_final_state=True)
    _, end = chunk_comba(**last, initial_state=state, output_final_state=True)
    k, p = (last[name][:, 0].repeat_interleave(2, 1) for name in ("k", "p"))
    missing = last["v"][:, 0] - torch.einsum("bhk,bhkv->bhv", p, state)
    assert_close("state", torch.einsum("bhk,bhv,bh->bhkv", k, missing, last["beta"][:, 0]), end, 1e-12)
