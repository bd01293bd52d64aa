"""Retention and lightning attention: the decays that they fix by themselves."""

from __future__ import annotations

import math

import pytest
import torch

from fla.ops._engines.scalar_decay.per_head import decay_per_head
from fla.ops.lightning_attn import chunk_lightning_attn, fused_recurrent_lightning_attn
from fla.ops.lightning_attn.api import _log_decay
from fla.ops.retention import chunk_retention, parallel_retention
from fla.ops.retention.api import _log_gamma
from fla.utils.numerics import assert_close


def test_decays_are_exact_for_many_heads_in_float32() -> None:
    decay = decay_per_head(torch.zeros(1, 1, 40, 1), _log_gamma)
    assert decay.dtype == torch.float32
    assert decay.tolist() == pytest.approx([math.log1p(-(2.0 ** (-5 - h))) for h in range(40)], rel=2e-7)


def test_decays_are_made_once_for_heads_device_and_layer() -> None:
    v = torch.zeros(2, 3, 4, 5)
    with torch.inference_mode():
        decay = decay_per_head(v, _log_decay, 1, 7)
    assert decay_per_head(v[:, :2], _log_decay, 1, 7) is decay
    assert not decay.is_inference()
    assert decay_per_head(v.double(), _log_decay, 1, 7).dtype == torch.float64
    assert not torch.equal(decay_per_head(v, _log_decay, 2, 7), decay)


def test_decays_of_fake_tensors_are_not_kept() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        decay_per_head(torch.zeros(1, 1, 13, 1), _log_gamma)
    assert type(decay_per_head(torch.zeros(1, 1, 13, 1), _log_gamma)) is torch.Tensor


def test_the_matrix_of_retention_gives_its_output() -> None:
    q, k, v = (torch.randn(2, 50, 3, d, dtype=torch.float64) for d in (8, 8, 12))
    o, matrix = parallel_retention(q, k, v, scale=0.5, output_attentions=True)
    distance = torch.arange(50)[:, None] - torch.arange(50)
    gamma = 1 - 2.0 ** (-5 - torch.arange(3, dtype=torch.float64))
    weights = (gamma[:, None, None] ** distance).tril()
    expected = 0.5 * torch.einsum("bihd,bjhd->bhij", q, k) * weights
    assert_close("matrix", expected, matrix, 1e-12)
    assert_close("o", (matrix @ v.transpose(1, 2)).transpose(1, 2), o, 1e-12)
    assert parallel_retention(q, k, v)[1] is None


@pytest.mark.parametrize("function", [chunk_lightning_attn, fused_recurrent_lightning_attn])
def test_bad_arguments_are_refused_by_name(function: object) -> None:
    x = torch.zeros(1, 4, 2, 8)
    assert callable(function)
    with pytest.raises(ValueError, match="layer_idx: expected from 0 to num_layers - 1 = 3, got 4"):
        function(x, x, x, 4, 4)
    with pytest.raises(ValueError, match=r"v: expected shape \[B, T, HV, V\].*\[4, 2, 8\]"):
        function(x, x, x[0], 0, 4)
    with pytest.raises(TypeError, match="v: expected a tensor.*float"):
        chunk_retention(x, x, 1.0)
