"""What is particular to the delta rule and the gated delta product; what all families share is tested elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from fla.ops._shared.cases import Shape, sequence_cases
from fla.ops.delta_rule import (
    chunk_delta_rule,
    delta_rule_recurrence,
    fused_chunk_delta_rule,
    fused_recurrent_delta_rule,
    naive_recurrent_delta_rule,
    parallel_delta_rule,
)
from fla.ops.delta_rule.spec import NEAR_TWO, ONE_KEY, RAW_BETA, chunk_delta_rule_hard
from fla.ops.gated_delta_product import chunk_gated_delta_product, naive_recurrent_gated_delta_product
from fla.ops.gated_delta_rule import chunk_gated_delta_rule, naive_recurrent_gated_delta_rule
from fla.utils.numerics import assert_close, check_error_budget
from fla.utils.testing.conformance import check_case

LONG = {
    "beta near 2": Shape(1, 1000, 2, 16, 16, options=NEAR_TWO),
    "one key": Shape(1, 1000, 2, 16, 16, options=ONE_KEY),
    "one key, beta near 2": Shape(1, 1000, 2, 16, 16, options={**NEAR_TWO, **ONE_KEY}),
}
#: With one key and beta near 2 each step turns what is stored round, and its rounding error with it: chunks in float32
#: are up to three times as far off as the budget allows.
LONG_RUNS = [
    (title, dtype)
    for title in LONG
    for dtype in (torch.float32, torch.bfloat16, torch.float16)
    if (title, dtype) != ("one key, beta near 2", torch.float32)
]


def operands(time: int, sub_steps: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(time)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(2, *shape, generator=generator, dtype=torch.float64).requires_grad_()

    steps = time * sub_steps
    q, k, v, beta = draw(time, 2, 8), draw(steps, 2, 8), draw(steps, 4, 6), draw(steps, 4)
    return {"q": q, "k": F.normalize(k, dim=-1), "v": v, "beta": beta.sigmoid()}


@pytest.mark.parametrize(("title", "dtype"), LONG_RUNS)
def test_long_hard_sequences_are_within_the_error_budget(title: str, dtype: torch.dtype) -> None:
    (case,) = sequence_cases(chunk_delta_rule_hard, RAW_BETA, {title: LONG[title]})
    check_case(case, "torch", "cpu", dtype, "reference")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_sequence_of_65536_steps_with_gates_from_0_to_minus_30(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (1, 2**16, 1)
    q, k, v = (torch.randn(*shape, 8, generator=generator, dtype=torch.float64) for _ in range(3))
    beta, strength = (torch.rand(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    exact = (q, F.normalize(k, dim=-1), v, -30 * strength**12, 2 * beta)
    narrow = [x.to(dtype) for x in exact]
    inputs = [x.double() for x in narrow]

    def run(operands: list[torch.Tensor], backend: str) -> tuple[torch.Tensor, torch.Tensor | None]:
        return chunk_gated_delta_rule(*operands, output_final_state=True, backend=backend)

    results = (run(inputs, "reference"), run(narrow, "reference"), run(narrow, "torch"))
    for what, *compared in zip(("output", "state"), *results):
        check_error_budget(what, *compared, dtype)


def test_the_attention_matrix_makes_the_output_and_its_gradients() -> None:
    inputs = operands(70)
    o, attn = parallel_delta_rule(**inputs, scale=0.3, output_attentions=True)
    assert attn is not None
    assert torch.equal(attn, attn.tril())
    made = torch.einsum("bhij,bjhv->bihv", attn, inputs["v"])
    assert_close("output", o, made, 1e-12)
    leaves = list(inputs.values())
    for name, expected, got in zip(inputs, *(torch.autograd.grad(x.square().sum(), leaves) for x in (o, made))):
        assert_close(name, expected, got, 1e-11)


def test_there_is_no_attention_matrix_of_packed_sequences() -> None:
    packed = {name: x[:1] for name, x in operands(10).items()}
    with pytest.raises(ValueError, match="output_attentions.*cu_seqlens=None"):
        parallel_delta_rule(**packed, output_attentions=True, cu_seqlens=torch.tensor([0, 4, 10]))


def test_a_beta_of_one_overwrites_what_the_key_holds() -> None:
    inputs = operands(20) | {"beta": None}
    _, state = fused_recurrent_delta_rule(**inputs, output_final_state=True)
    assert state is not None
    read = torch.einsum("bhkv,bhk->bhv", state, inputs["k"][:, -1].repeat_interleave(2, 1))
    assert_close("last value", inputs["v"][:, -1], read, 1e-12)


def test_the_names_of_one_form_are_one() -> None:
    assert fused_chunk_delta_rule is chunk_delta_rule
    inputs = operands(12)
    for expected, got in zip(
        naive_recurrent_delta_rule(**inputs, output_final_state=True), delta_rule_recurrence(**inputs)
    ):
        assert torch.equal(expected, got)


def test_one_sub_step_is_the_gated_delta_rule() -> None:
    inputs, g = operands(20), F.logsigmoid(operands(20)["beta"])
    expected, _ = naive_recurrent_gated_delta_rule(**inputs, g=g)
    assert_close("output", expected, naive_recurrent_gated_delta_product(**inputs, g=g)[0], 1e-12)


def test_orthogonal_sub_steps_write_all_their_values() -> None:
    inputs = operands(1, 3) | {"beta": torch.ones(2, 3, 4)}
    keys = torch.eye(8, dtype=torch.float64)[:3, None].expand(2, 3, 2, 8)
    _, state = chunk_gated_delta_product(**{**inputs, "k": keys}, g=None, num_householder=3, output_final_state=True)
    assert state is not None
    assert_close("state", inputs["v"].transpose(1, 2), state[:, :, :3], 1e-12)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"num_householder": 0}, ValueError, "num_householder: expected at least 1, got 0"),
        ({"num_householder": 2.0}, TypeError, "num_householder: expected an int, got float"),
        (
            {"num_householder": 3},
            ValueError,
            r"k: expected shape \[B, T\*num_householder, H, K\] .*=30.*\[2, 20, 2, 8\]",
        ),
        ({"beta": torch.rand(2, 10, 4)}, ValueError, r"beta: expected shape .*T\*num_householder=20.*\[2, 10, 4\]"),
        ({"g": torch.zeros(2, 20, 4)}, ValueError, r"g: expected shape .*T=10.*\[2, 20, 4\]"),
        ({"beta": None}, TypeError, "beta: expected a tensor.*NoneType"),
        ({"cu_seqlens": torch.tensor([0, 10])}, ValueError, "cu_seqlens.*B=2"),
        ({"initial_state": torch.zeros(2, 2, 8, 6)}, ValueError, r"initial_state.*HV=4.*\[2, 2, 8, 6\]"),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else "",
)
def test_bad_input_of_the_product_is_refused_by_name(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    arguments = {**operands(10, 2), "g": None, "num_householder": 2, **changes}
    with pytest.raises(error, match=message):
        chunk_gated_delta_product(**arguments)
