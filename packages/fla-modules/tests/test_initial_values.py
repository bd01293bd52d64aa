"""What the parameters of modules start from."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from fla.modules import (
    FusedLayerNormGated,
    FusedRMSNormGated,
    GroupNorm,
    LayerNorm,
    LearnablePolySketchNonNegativeFeatureMap,
    RebasedFeatureMap,
    RMSNorm,
)
from fla.modules._initial import set_initial_values

MODULES = {
    "layer norm": LayerNorm(8, bias=True),
    "norm without parameters": RMSNorm(8, elementwise_affine=False),
    "group norm": GroupNorm(2, 8, bias=True),
    "gated layer norm": FusedLayerNormGated(8, bias=True),
    "gated RMS norm": FusedRMSNormGated(8),
    "rebased": RebasedFeatureMap(8),
    "rebased, no gamma": RebasedFeatureMap(8, use_gamma=False),
    "sketch": LearnablePolySketchNonNegativeFeatureMap(8),
}


@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
def test_a_module_says_what_each_parameter_of_its_own_starts_from(module: nn.Module) -> None:
    own = dict(module.named_parameters(recurse=False))
    expected = {name: parameter.detach().clone() for name, parameter in own.items()}
    with torch.no_grad():
        for parameter in own.values():
            parameter.fill_(math.nan)
    set_initial_values(module)
    for name, parameter in own.items():
        assert torch.equal(parameter, expected[name]), name
