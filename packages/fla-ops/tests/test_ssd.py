"""What is particular to state-space duality: what each head has one of, the names of mamba-ssm, and bad input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fla.ops.ssd import fused_recurrent_ssd, mamba_chunk_scan, mamba_chunk_scan_combined
from fla.utils.numerics import assert_close

Scan = Callable[..., Any]
both_forms = pytest.mark.parametrize("scan", [mamba_chunk_scan, fused_recurrent_ssd])


def arguments(steps: int = 7, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    return {
        "x": drawn(1, steps, 4, 3),
        "dt": drawn(1, steps, 4),
        "A": -drawn(4).exp(),
        "B": drawn(1, steps, 2, 5),
        "C": drawn(1, steps, 2, 5),
        "D": drawn(4),
        "z": drawn(1, steps, 4, 3),
        "dt_bias": drawn(4),
        "initial_states": drawn(1, 4, 3, 5),
    }


@both_forms
def test_gradients_of_every_argument(scan: Scan) -> None:
    given = {name: x.requires_grad_() for name, x in arguments().items()}

    def call(*tensors: torch.Tensor) -> Any:
        return scan(**dict(zip(given, tensors)), dt_softplus=True, dt_limit=(0.05, 2.0), return_final_states=True)

    assert torch.autograd.gradcheck(call, tuple(given.values()))


@both_forms
def test_what_each_head_has_one_of_in_float32(scan: Scan) -> None:
    gradients = []
    for dtype, backend in ((torch.float64, "reference"), (torch.float32, "torch")):
        given = {name: x.requires_grad_() for name, x in arguments(90, dtype).items()}
        y = scan(**given, dt_softplus=True, backend=backend)
        gradients.append(torch.autograd.grad(y.square().sum(), [given[name] for name in ("A", "D", "dt_bias")]))
    for name, expected, got in zip(("A", "D", "dt_bias"), *gradients):
        assert_close(name, expected, got, 1e-4)


@both_forms
def test_half_precision_comes_with_parameters_in_float32(scan: Scan) -> None:
    given = arguments(40, torch.float32)
    rounded = {name: x.bfloat16() if name in ("x", "dt", "B", "C", "z") else x for name, x in given.items()}
    y, states = scan(**rounded, dt_softplus=True, return_final_states=True)
    assert (y.dtype, states.dtype) == (torch.bfloat16, torch.float32)
    exact = {name: x.double() for name, x in rounded.items()}
    assert_close("y", scan(**exact, dt_softplus=True, backend="reference"), y, 0.01)


def test_the_result_is_bare_unless_states_are_asked_for() -> None:
    given = arguments()
    y = mamba_chunk_scan_combined(**given, chunk_size=64)
    both, states = mamba_chunk_scan(**given, return_final_states=True)
    assert torch.equal(y, both)
    assert states.shape == given["initial_states"].shape


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dt": torch.zeros(1, 7, 3)}, r"dt: expected shape \[B, T, H\].*H=4, got \[1, 7, 3\]"),
        ({"A": torch.zeros(4, 2)}, r"A: expected shape \[H\] with H=4, got \[4, 2\]"),
        ({"B": torch.zeros(1, 7, 3, 5), "C": torch.zeros(1, 7, 3, 5)}, "B: expected G a divisor of the H=4 heads of x"),
        ({"C": torch.zeros(1, 7, 2, 6)}, r"C: expected shape \[B, T, G, N\].*N=5, got \[1, 7, 2, 6\]"),
        ({"D": torch.zeros(4, 4)}, r"D: expected shape \[H, P\] with H=4, P=3, got \[4, 4\]"),
        ({"initial_states": torch.zeros(1, 4, 5, 3)}, r"initial_states: .*P=3, N=5, got \[1, 4, 5, 3\]"),
        ({"dt_limit": (0.5, 0.1)}, r"dt_limit: expected 0 <= least <= greatest, got \(0.5, 0.1\)"),
        ({"dt_limit": (-1.0, 0.1)}, "dt_limit"),
        ({"cu_seqlens": torch.tensor([0, 3, 7])}, r"initial_states: .*S=2.*got \[1, 4, 3, 5\]"),
    ],
)
@both_forms
def test_bad_input_is_refused_by_name(scan: Scan, change: dict[str, Any], message: str) -> None:
    given = {name: x.float() for name, x in arguments().items()}
    with pytest.raises(ValueError, match=message):
        scan(**{**given, **change})


def test_another_dtype_of_b_and_what_only_mamba_ssm_takes_are_refused() -> None:
    given = arguments()
    with pytest.raises(TypeError, match=r"B: expected torch.float64 as x, got torch.float32"):
        mamba_chunk_scan(**{**given, "B": given["B"].float()})
    with pytest.raises(ValueError, match="seq_idx: expected None, pack sequences by cu_seqlens"):
        mamba_chunk_scan(**given, seq_idx=torch.zeros(1, 7, dtype=torch.int32))
    with pytest.raises(ValueError, match="chunk_size: expected at least 1, got 0"):
        mamba_chunk_scan(**given, chunk_size=0)
