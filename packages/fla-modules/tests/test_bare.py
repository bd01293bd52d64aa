"""A weight is read in place of a call only where nothing waits for the call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules import module as calls
from torch.nn.utils import parametrizations, prune

from fla.modules import FusedBitLinear, GatedMLP, PackedBitLinear, RMSNorm
from fla.modules._bare import is_bare, is_bare_linear


def _hook(*_: Any) -> None:
    return None


class _Subclass(nn.Linear):
    pass


class _Quantised(torch.Tensor):
    """A weight that only looks like numbers, as quantised and sharded ones do."""


def _with_weight(module: nn.Linear, weight: torch.Tensor) -> None:
    module.weight = nn.Parameter(weight, requires_grad=False)


def _with_forward(module: nn.Linear) -> None:
    module.forward = module.forward  # type: ignore[method-assign]


WAITING: dict[str, Callable[[nn.Linear], Any]] = {
    "a forward hook": lambda m: m.register_forward_hook(_hook),
    "a forward pre hook": lambda m: m.register_forward_pre_hook(_hook),
    "a full backward hook": lambda m: m.register_full_backward_hook(_hook),
    "a full backward pre hook": lambda m: m.register_full_backward_pre_hook(_hook),
    "an old backward hook": lambda m: m.register_backward_hook(_hook),
    "a forward hook on all": lambda m: calls.register_module_forward_hook(_hook),
    "a forward pre hook on all": lambda m: calls.register_module_forward_pre_hook(_hook),
    "a full backward hook on all": lambda m: calls.register_module_full_backward_hook(_hook),
    "a full backward pre hook on all": lambda m: calls.register_module_full_backward_pre_hook(_hook),
    "a parametrisation": parametrizations.weight_norm,
    "pruning": lambda m: prune.l1_unstructured(m, "weight", 1),
    "another forward": _with_forward,
    "a subclass": lambda m: setattr(m, "__class__", _Subclass),
    "a weight elsewhere": lambda m: _with_weight(m, m.weight.detach().to("meta")),
    "a sharded weight": lambda m: _with_weight(m, m.weight.detach()[:0]),
    "a quantised weight": lambda m: _with_weight(m, m.weight.detach().as_subclass(_Quantised)),
}


@pytest.mark.parametrize("wait", WAITING.values(), ids=WAITING)
def test_what_waits_for_the_call_is_seen(wait: Callable[[nn.Linear], Any]) -> None:
    layer = nn.Linear(4, 3)
    assert is_bare_linear(layer)
    handle = wait(layer)
    try:
        assert not is_bare_linear(layer)
    finally:
        if hasattr(handle, "remove"):
            handle.remove()
    if hasattr(handle, "remove"):
        assert is_bare_linear(layer)


def test_only_its_own_kind_is_bare() -> None:
    assert is_bare(RMSNorm(4), RMSNorm, 4)
    assert not is_bare(RMSNorm(4, elementwise_affine=False), RMSNorm, 4)
    assert not is_bare(nn.RMSNorm(4), RMSNorm, 4)
    assert not is_bare_linear(FusedBitLinear(4, 3))
    assert not is_bare_linear(nn.Bilinear(4, 4, 3))


def test_a_weight_given_for_one_call_is_read() -> None:
    mlp, x = GatedMLP(8, intermediate_size=12), torch.randn(2, 8)
    weights = {name: 2 * weight for name, weight in mlp.state_dict().items()}
    given = torch.func.functional_call(mlp, weights, x)
    mlp.load_state_dict(weights)
    torch.testing.assert_close(given, mlp(x))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_hooks_on_the_norm_of_a_ternary_layer_are_called(packed: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer: Any = FusedBitLinear(8, 4, dtype=dtype)
    if packed:
        layer = PackedBitLinear.from_bitlinear(layer).eval()
    x, seen = torch.randn(5, 8, dtype=dtype), []
    expected = layer(x)
    layer.norm.register_forward_hook(lambda *_: seen.append(1))
    torch.testing.assert_close(layer(x), expected)
    assert len(seen) == 1
