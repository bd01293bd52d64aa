"""What is particular to the selective scan: what each channel has of its own, single steps, and bad input."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fla.ops._engines.selective_scan.operands import Operands
from fla.ops.mamba import selective_scan, selective_scan_fn, selective_state_update
from fla.utils.numerics import assert_close


def arguments(steps: int = 7, dtype: torch.dtype = torch.float64, batch: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    return {
        "u": drawn(batch, 6, steps),
        "delta": drawn(batch, 6, steps),
        "A": -drawn(6, 3).exp(),
        "B": drawn(batch, 2, 3, steps),
        "C": drawn(batch, 2, 3, steps),
        "D": drawn(6),
        "z": drawn(batch, 6, steps),
        "delta_bias": drawn(6),
        "initial_state": drawn(batch, 6, 3),
    }


def test_gradients_of_every_argument() -> None:
    given = {name: x.requires_grad_() for name, x in arguments(20).items()}

    def call(*tensors: torch.Tensor) -> Any:
        return selective_scan(**dict(zip(given, tensors)), delta_softplus=True, return_last_state=True)

    assert torch.autograd.gradcheck(call, tuple(given.values()))


def test_half_precision_comes_with_parameters_in_float32() -> None:
    given = arguments(40, torch.float32)
    rounded = {name: x.bfloat16() if name in ("u", "delta", "B", "C", "z") else x for name, x in given.items()}
    y, state = selective_scan(**rounded, delta_softplus=True, return_last_state=True)
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    exact = {name: x.double() for name, x in rounded.items()}
    assert_close("y", selective_scan(**exact, delta_softplus=True, backend="reference"), y, 0.01)


def test_the_result_is_bare_unless_the_state_is_asked_for() -> None:
    given = arguments()
    y = selective_scan_fn(**given)
    both, state = selective_scan(**given, return_last_state=True)
    assert torch.equal(y, both)
    assert state.shape == given["initial_state"].shape


@pytest.mark.parametrize("backend", ["torch", "reference"])
@pytest.mark.parametrize("grouped", [True, False])
def test_steps_with_a_state_equal_the_scan(backend: str, grouped: bool) -> None:
    given = arguments(5, batch=2)
    if not grouped:
        given = {**given, "B": given["B"][:, 0], "C": given["C"][:, 1]}
    expected, last_state = selective_scan(**given, delta_softplus=True, return_last_state=True, backend="reference")
    state, outputs = given["initial_state"].clone(), []
    for t in range(5):
        x, dt, B, C, z = (given[name][..., t] for name in ("u", "delta", "B", "C", "z"))
        shared = {name: given[name] for name in ("A", "D")}
        step = {"B": B, "C": C, "z": z, "dt_bias": given["delta_bias"], "dt_softplus": True}
        outputs.append(selective_state_update(state, x, dt, **shared, **step, backend=backend))
    assert_close("y", expected, torch.stack(outputs, -1), 1e-12)
    assert_close("state", last_state, state, 1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"delta": torch.zeros(1, 5, 7)}, r"delta: expected shape \[B, D, T\].*D=6.*got \[1, 5, 7\]"),
        ({"A": torch.zeros(6)}, r"A: expected shape \[D, N\] with D=6, got \[6\]"),
        ({"B": torch.zeros(1, 4, 3, 7), "C": torch.zeros(1, 4, 3, 7)}, "B: expected G a divisor of the D=6 channels"),
        ({"C": torch.zeros(1, 3, 7)}, r"C: expected shape \[B, G, N, T\].*got \[1, 3, 7\]"),
        ({"D": torch.zeros(6, 3)}, r"D: expected shape \[D\] with D=6, got \[6, 3\]"),
        ({"initial_state": torch.zeros(1, 3, 6)}, r"initial_state: .*D=6, N=3, got \[1, 3, 6\]"),
        ({"cu_seqlens": torch.tensor([0, 3, 7])}, r"initial_state: .*S=2.*got \[1, 6, 3\]"),
        (
            {"A": torch.zeros(6, 300), "B": torch.zeros(1, 300, 7), "C": torch.zeros(1, 300, 7)},
            "A: expected at most 256 states for each channel, got N=300",
        ),
    ],
)
def test_bad_input_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    given = {name: x.float() for name, x in arguments().items()}
    with pytest.raises(ValueError, match=message):
        selective_scan(**{**given, **change})


def test_a_step_of_another_shape_is_refused_by_name() -> None:
    state = torch.zeros(2, 6, 3)
    step = {"dt": torch.zeros(2, 6), "A": torch.zeros(6, 3), "B": torch.zeros(2, 3), "C": torch.zeros(2, 3)}
    with pytest.raises(ValueError, match=r"x: expected shape \[B, D\] with B=2, D=6, got \[2, 5\]"):
        selective_state_update(state, torch.zeros(2, 5), **step)


@pytest.mark.parametrize(
    ("states", "offset", "dtype", "words"),
    [
        (6, 0, torch.bfloat16, "bfloat16"),
        (6, 0, torch.float16, "float16"),
        (5, 0, torch.bfloat16, None),
        (6, 1, torch.bfloat16, None),
        (6, 0, torch.float32, None),
    ],
)
def test_half_precision_goes_in_words_where_rows_are_whole_words(
    states: int, offset: int, dtype: torch.dtype, words: str | None
) -> None:
    u = torch.randn(1, 3, 4, dtype=dtype)
    B, C = torch.randn(2, offset + 3 * states).to(dtype)[:, offset:].view(2, 1, 3, 1, states)
    in_words, name = Operands(u, u, torch.randn(4, states), B, C, None, None, None).in_words()
    assert name == words
    assert torch.equal(in_words.B.view(dtype), B)
    assert torch.equal(in_words.C.view(dtype), C)
