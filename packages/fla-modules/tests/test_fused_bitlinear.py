"""Linear layers with ternary weights and 8-bit activations, and their weights in 2 bits."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fla.modules import BitLinear, FusedBitLinear, GatedMLP, PackedBitLinear, rms_norm
from fla.modules.fused_bitlinear import (
    activation_quant,
    pack_bitlinear,
    pack_ternary,
    rms_norm_linear_quant,
    rms_norm_quant,
    unpack_ternary,
    weight_quant,
)

LAYERS = [BitLinear, FusedBitLinear]
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def randn(*size: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def layer_of(kind: type[BitLinear], dtype: torch.dtype = torch.float64, bias: bool = True) -> BitLinear:
    torch.manual_seed(0)
    layer = kind(33, 12, bias, norm_eps=0.1, dtype=dtype)
    nn.init.uniform_(layer.norm.weight, 0.5, 1.5)
    return layer


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_activations_are_the_nearest_of_255_steps(dtype: torch.dtype) -> None:
    x = randn(4, 3, 50, dtype=dtype)
    y = activation_quant(x)
    assert y.dtype == dtype
    x, y = x.double(), y.double()
    largest = x.abs().amax(-1, keepdim=True)
    rounding = largest * torch.finfo(dtype).eps
    assert ((y * 127 / largest).round() * largest / 127 - y).abs().le(rounding).all()
    assert ((y - x).abs() <= largest / 254 + rounding).all()
    # Each row has a scale of its own: its largest magnitude stays as it is.
    assert (y.abs().amax(-1, keepdim=True) - largest).abs().le(rounding).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_weights_are_three_values(dtype: torch.dtype) -> None:
    w = randn(20, 30, dtype=dtype)
    y = weight_quant(w)
    assert y.dtype == dtype
    mean = w.double().abs().mean().to(dtype)
    # A mean may be summed in another order.
    torch.testing.assert_close(y.unique(), torch.stack([-mean, torch.zeros_like(mean), mean]))
    assert torch.equal(y != 0, w.double().abs() > w.double().abs().mean() / 2)
    assert (y * w >= 0).all()


@pytest.mark.parametrize("quantise", [activation_quant, weight_quant, rms_norm_quant])
def test_zeros_stay_zeros(quantise: Callable[[torch.Tensor], torch.Tensor]) -> None:
    x = torch.zeros(3, 5, requires_grad=True)
    y = quantise(x)
    (dx,) = torch.autograd.grad(y.sum(), x)
    assert y.eq(0).all()
    assert dx.isfinite().all()


@pytest.mark.parametrize("quantise", [activation_quant, weight_quant])
def test_gradients_pass_straight_through(quantise: Callable[[torch.Tensor], torch.Tensor]) -> None:
    x, d = randn(5, 7, dtype=torch.float32).requires_grad_(), torch.randn(5, 7)
    y = quantise(x)
    assert torch.equal(torch.autograd.grad(y, x, d)[0], d)
    # Differentiated or not, the values are the same to the bit.
    assert torch.equal(y, quantise(x.detach()))


@pytest.mark.parametrize("kind", LAYERS)
def test_layer_is_its_formula(kind: type[BitLinear]) -> None:
    layer, x, d = layer_of(kind), randn(2, 5, 33).requires_grad_(), randn(2, 5, 12)
    y = layer(x)
    normed = x * (x.square().mean(-1, keepdim=True) + 0.1).rsqrt() * layer.norm.weight
    steps = 127 / normed.abs().amax(-1, keepdim=True)
    quantised = torch.round(normed * steps) / steps
    mean = layer.weight.abs().mean()
    signs = torch.sign(layer.weight) * (layer.weight.abs() > mean / 2)
    torch.testing.assert_close(y, F.linear(quantised, signs * mean, layer.bias))
    got = torch.autograd.grad(y, [x, layer.weight, layer.bias, layer.norm.weight], d)
    dnormed = d @ (signs * mean)
    expected = [
        *torch.autograd.grad(normed, [x, layer.norm.weight], dnormed),
        torch.einsum("bto,bti->oi", d, quantised),
        d.sum((0, 1)),
    ]
    for result, truth in zip(got, [expected[0], expected[2], expected[3], expected[1]]):
        torch.testing.assert_close(result, truth.detach())


def test_residual_is_added_first_and_handed_on() -> None:
    x, residual, w, norm_weight = randn(3, 33), randn(3, 33).flip(0), randn(12, 33), randn(33)
    y, total = rms_norm_linear_quant(x, norm_weight, None, w, None, residual, 0.1, prenorm=True)
    assert torch.equal(total, x + residual)
    torch.testing.assert_close(y, rms_norm_linear_quant(x + residual, norm_weight, None, w, None, eps=0.1))
    apart = activation_quant(rms_norm(x + residual, norm_weight, eps=0.1))
    torch.testing.assert_close(y, F.linear(apart, weight_quant(w)))
    normed, total = rms_norm_quant(x, norm_weight, None, residual, 0.1, prenorm=True, residual_in_fp32=True)
    torch.testing.assert_close(normed, apart)
    assert torch.equal(total, x + residual)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_fused_rounds_less_than_the_norm_and_the_quantisation_apart(dtype: torch.dtype) -> None:
    x = randn(64, 33, dtype=dtype)
    exact = rms_norm_quant(x.double())
    errors = [(y.double() - exact).norm() for y in (rms_norm_quant(x), activation_quant(rms_norm(x)))]
    assert errors[0] < errors[1]
    assert errors[0] <= torch.finfo(dtype).eps * exact.norm()


@pytest.mark.parametrize("features", [1, 3, 4, 5, 33])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8], ids=str)
def test_four_weights_make_a_byte(features: int, dtype: torch.dtype) -> None:
    signs = torch.randint(-1, 2, (6, features), generator=torch.Generator().manual_seed(features)).to(dtype)
    packed = pack_ternary(signs)
    assert packed.dtype == torch.uint8
    assert packed.shape == (6, -(-features // 4))
    assert torch.equal(unpack_ternary(packed, features, dtype), signs)
    for n in range(features):
        assert torch.equal((packed[:, n // 4].int() >> 2 * (n % 4) & 3) - 1, signs[:, n].int())


def test_what_is_no_ternary_weight_is_refused() -> None:
    for wrong in (torch.tensor([0.5]), torch.tensor([2]), torch.tensor([float("nan")])):
        with pytest.raises(ValueError, match="signs: expected -1, 0 and 1 only"):
            pack_ternary(wrong)
    with pytest.raises(TypeError, match="packed: expected uint8, got torch.int32"):
        unpack_ternary(torch.zeros(2, 1, dtype=torch.int32), 4)
    with pytest.raises(ValueError, match=r"packed: .* with D=4, got \[2, 2\]"):
        unpack_ternary(torch.zeros(2, 2, dtype=torch.uint8), 4)
    for quantise in (activation_quant, weight_quant):
        with pytest.raises(TypeError, match="expected float32.*got torch.int64"):
            quantise(torch.ones(3, dtype=torch.int64))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_packed_layer_gives_the_same_to_the_bit(dtype: torch.dtype, bias: bool) -> None:
    layer, x = layer_of(FusedBitLinear, dtype, bias), randn(4, 33, dtype=dtype).requires_grad_()
    packed = PackedBitLinear.from_bitlinear(layer).eval()
    y, d = layer(x), randn(4, 12, dtype=dtype)
    assert torch.equal(packed(x), y)
    assert torch.equal(torch.autograd.grad(packed(x), x, d)[0], torch.autograd.grad(y, x, d)[0])
    assert not any(p.requires_grad for p in packed.parameters())


def test_packed_layer_is_saved_loaded_and_cast() -> None:
    layer, x, file = layer_of(FusedBitLinear, torch.float32), randn(4, 33, dtype=torch.float32), io.BytesIO()
    packed = PackedBitLinear.from_bitlinear(layer).eval()
    torch.save(packed.state_dict(), file)
    loaded = PackedBitLinear(33, 12, bias=True, norm_eps=0.1).eval()
    assert loaded(x).eq(0).all()
    loaded.load_state_dict(torch.load(io.BytesIO(file.getvalue())))
    assert torch.equal(loaded(x), packed(x))
    assert loaded.bfloat16().weight.dtype == torch.uint8
    torch.testing.assert_close(loaded(x.bfloat16()).float(), packed(x), rtol=0.02, atol=0.02)
    laid_out = PackedBitLinear.from_bitlinear(FusedBitLinear(33, 12, device="meta"))
    assert laid_out.weight.device.type == "meta"


def test_packed_layer_is_an_eighth_of_bfloat16() -> None:
    layer = FusedBitLinear(1024, 512, dtype=torch.bfloat16)
    packed = PackedBitLinear.from_bitlinear(layer)
    norm = 1024 * 2
    assert sum(p.nbytes for p in layer.parameters()) == 1024 * 512 * 2 + norm
    assert sum(t.nbytes for t in packed.state_dict().values()) == 1024 * 512 // 4 + norm + 4


def test_packed_layer_refuses_training() -> None:
    packed = PackedBitLinear.from_bitlinear(layer_of(FusedBitLinear))
    assert packed.training
    with pytest.raises(RuntimeError, match=r"cannot be trained: call eval\(\)"):
        packed(randn(4, 33))


def test_every_ternary_layer_of_a_model_is_packed_and_no_other() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        GatedMLP(16, intermediate_size=24, linear=FusedBitLinear), nn.Linear(16, 33), BitLinear(33, 8)
    )
    x = torch.randn(5, 16)
    expected = model(x)
    assert pack_bitlinear(model) is model
    kinds = [type(m) for m in model.modules() if isinstance(m, (nn.Linear, PackedBitLinear))]
    assert kinds == [PackedBitLinear] * 3 + [nn.Linear, PackedBitLinear]
    torch.testing.assert_close(model.eval()(x), expected)
    assert isinstance(pack_bitlinear(BitLinear(4, 4)), PackedBitLinear)


@pytest.mark.parametrize("packed", [False, True])
def test_compiles_whole(packed: bool) -> None:
    torch._dynamo.reset()
    layer: nn.Module = layer_of(FusedBitLinear)
    if packed:
        layer = pack_bitlinear(layer).eval()
    x = randn(4, 33).requires_grad_()
    expected, result = layer(x), torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(result, expected)
    d = torch.randn_like(expected)
    torch.testing.assert_close(torch.autograd.grad(result, x, d), torch.autograd.grad(expected, x, d))
