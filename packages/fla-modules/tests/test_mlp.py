"""The gated MLP: names and sizes of checkpoints, values, and what stands in for its last projection."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fla.modules import GatedMLP
from fla.modules.activations import powglu


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        ({"hidden_size": 64, "hidden_ratio": 4}, 256),
        ({"hidden_size": 64}, 256),
        ({"hidden_size": 1024}, 2816),
        ({"hidden_size": 2048, "hidden_ratio": 3.5}, 4864),
        ({"hidden_size": 64, "intermediate_size": 100}, 100),
    ],
)
def test_names_and_sizes(arguments: dict[str, Any], size: int) -> None:
    with torch.device("meta"):
        mlp = GatedMLP(**arguments)
    hidden = arguments["hidden_size"]
    shapes = {name: tuple(p.shape) for name, p in mlp.state_dict().items()}
    assert shapes == {
        "gate_proj.weight": (size, hidden),
        "up_proj.weight": (size, hidden),
        "down_proj.weight": (hidden, size),
    }
    assert mlp.intermediate_size == size


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("act", ["swish", "powglu"])
def test_is_its_formula(act: str, fuse: bool) -> None:
    mlp = GatedMLP(8, intermediate_size=12, hidden_act=act, fuse_swiglu=fuse, powglu_power=2.0).double()
    x = torch.randn(2, 3, 8, dtype=torch.float64)
    gate, up = mlp.gate_proj(x), mlp.up_proj(x)
    product = F.silu(gate) * up if act == "swish" else powglu(gate, up, 2.0)
    torch.testing.assert_close(mlp(x), mlp.down_proj(product))


class _Doubled(nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(input)


def test_an_adapter_on_the_last_projection_is_called() -> None:
    mlp, x = GatedMLP(8, intermediate_size=12), torch.randn(2, 8)
    expected = 2 * mlp(x)
    adapter = _Doubled(12, 8, bias=False)
    adapter.weight = mlp.down_proj.weight
    mlp.down_proj = adapter
    torch.testing.assert_close(mlp(x), expected)


def test_hooks_on_the_last_projection_are_called() -> None:
    mlp, x = GatedMLP(8, intermediate_size=12), torch.randn(2, 8)
    expected = 2 * mlp(x)
    mlp.down_proj.register_forward_hook(lambda module, inputs, output: 2 * output)
    torch.testing.assert_close(mlp(x), expected)


def test_unknown_activation_is_named() -> None:
    with pytest.raises(ValueError, match="hidden_act: expected one of swish, silu, powglu, got 'gelu'"):
        GatedMLP(8, hidden_act="gelu")
