"""Scaling rows to unit length."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck

from fla.modules import L2Norm, l2_norm
from fla.modules.l2norm import l2norm


def test_is_its_formula() -> None:
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    y = l2_norm(x, eps=0.1)
    torch.testing.assert_close(y, x / (x.square().sum(-1, keepdim=True) + 0.1).sqrt())
    assert gradcheck(lambda x: l2_norm(x, eps=0.1), (x,))
    assert l2norm is l2_norm


def test_zeros_stay_zeros() -> None:
    x = torch.zeros(2, 4, requires_grad=True)
    y = L2Norm()(x)
    y.sum().backward()
    assert x.grad is not None
    assert y.eq(0).all()
    assert x.grad.isfinite().all()


def test_output_dtype() -> None:
    x = torch.randn(3, 8).bfloat16()
    y = L2Norm(output_dtype=torch.float32)(x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.norm(dim=-1), torch.ones(3))
    with pytest.raises(TypeError, match="output_dtype: expected a floating dtype, got torch.int32"):
        l2_norm(x, output_dtype=torch.int32)
