"""Feature maps: the kernel that each stands for, its parameters, gradients and dtypes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import gradcheck

from fla.modules import feature_map as maps

D = 4
PARAMETERS: dict[str, tuple[Callable[[], nn.Module], dict[str, tuple[int, ...]]]] = {
    "hedgehog": (lambda: maps.HedgehogFeatureMap(D), {"layer.weight": (D, D), "layer.bias": (D,)}),
    "t2r": (lambda: maps.T2RFeatureMap(D), {"layer.weight": (D, D)}),
    "t2r wide": (lambda: maps.T2RFeatureMap(D, 6, bias=True), {"layer.weight": (6, D), "layer.bias": (6,)}),
    "dpfp": (lambda: maps.DPFPFeatureMap(D, nu=2), {}),
    "hadamard": (
        lambda: maps.HadamardFeatureMap(D),
        {f"layer{i}.{name}": shape for i in (1, 2) for name, shape in (("weight", (D, D)), ("bias", (D,)))},
    ),
    "outer product": (
        lambda: maps.LearnableOuterProductFeatureMap(D, 3),
        {"layer1.weight": (3, D), "layer2.weight": (3, D)},
    ),
    "outer product, full": (
        lambda: maps.LearnableOuterProductFeatureMap(D, 3, full=True),
        {"layer1.weight": (3, D), "layer2.weight": (3, D)},
    ),
    "polysketch": (
        lambda: maps.LearnablePolySketchNonNegativeFeatureMap(D),
        {"gamma": (D,), "beta": (D,), "sketches1.0.weight": (D, D), "sketches2.0.weight": (D, D)},
    ),
    "polysketch of degree 8": (
        lambda: maps.LearnablePolySketchNonNegativeFeatureMap(D, 3, degree=8),
        {
            "gamma": (D,),
            "beta": (D,),
            **{f"sketches{i}.0.weight": (3, D) for i in (1, 2)},
            **{f"sketches{i}.1.weight": (3, 3) for i in (1, 2)},
        },
    ),
    "taylor": (lambda: maps.TaylorFeatureMap(D), {}),
    "rebased": (lambda: maps.RebasedFeatureMap(D), {"gamma": (D,), "beta": (D,)}),
    "rebased, bare": (lambda: maps.RebasedFeatureMap(D, False, False, False), {}),
    "rebased, affine alone": (lambda: maps.RebasedFeatureMap(D, normalize=False), {"gamma": (D,), "beta": (D,)}),
    **{
        name: (make, {})
        for name, make in (
            ("relu", maps.ReLUFeatureMap),
            ("sqrelu", maps.SquaredReLUFeatureMap),
            ("gelu", maps.GELUFeatureMap),
            ("swish", maps.SwishFeatureMap),
            ("sigmoid", maps.SigmoidFeatureMap),
            ("elu", maps.ELUFeatureMap),
        )
    },
}


def drawn(name: str) -> Any:
    """The map with every parameter drawn anew, in float64."""
    torch.manual_seed(0)
    phi = PARAMETERS[name][0]().double()
    for parameter in phi.parameters():
        nn.init.normal_(parameter)
    return phi


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(2, 7, D, dtype=torch.float64), torch.randn(2, 7, D, dtype=torch.float64)


def dot(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x * y).sum(-1)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_named_and_shaped_as_checkpoints_have_them(name: str) -> None:
    make, expected = PARAMETERS[name]
    assert {key: tuple(p.shape) for key, p in make().state_dict().items()} == expected


@pytest.mark.parametrize("name", PARAMETERS)
def test_gradients_and_dtype(name: str) -> None:
    phi, x = drawn(name), pair()[0].requires_grad_()
    assert gradcheck(lambda x, *_: phi(x), (x, *phi.parameters()))
    assert phi(x).dtype == torch.float64
    assert phi.bfloat16()(x.bfloat16()).dtype == torch.bfloat16


def test_symmetric_square_is_the_squared_dot_product() -> None:
    x, y = pair()
    torch.testing.assert_close(dot(maps.symmetric_square(x), maps.symmetric_square(y)), dot(x, y).square())
    assert maps.symmetric_square(x).shape == (2, 7, D * (D + 1) // 2)


def test_taylor_is_the_second_order_expansion_of_the_exponential() -> None:
    (x, y), phi = pair(), maps.TaylorFeatureMap(D)
    s = dot(x, y) / D**0.5
    torch.testing.assert_close(dot(phi(x), phi(y)), 1 + s + s.square() / 2)
    assert phi(x).shape[-1] == 1 + D + D * (D + 1) // 2


@pytest.mark.parametrize("normalize", [True, False])
def test_rebased_is_the_square_of_an_affine_map(normalize: bool) -> None:
    (x, y), phi = pair(), drawn("rebased" if normalize else "rebased, affine alone")

    def z(x: torch.Tensor) -> torch.Tensor:
        if normalize:
            x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
        return phi.gamma * x + phi.beta

    torch.testing.assert_close(phi(x, flatten=False), z(x))
    torch.testing.assert_close(dot(phi(x), phi(y)), dot(z(x), z(y)).square() / D)
    bare = maps.RebasedFeatureMap(D, use_gamma=False, use_beta=False, normalize=False)
    torch.testing.assert_close(dot(bare(x), bare(y)), dot(x, y).square() / D)


def test_hedgehog_starts_as_a_softmax_of_both_signs() -> None:
    x, _ = pair()
    expected = torch.cat([(2 * x).exp(), (-2 * x).exp()], -1)
    torch.testing.assert_close(maps.HedgehogFeatureMap(D).double()(x), expected / expected.sum(-1, keepdim=True))
    phi = drawn("hedgehog")
    torch.testing.assert_close(phi(x)[..., :D].log() - phi(x)[..., D:].log(), 4 * phi.layer(x))


def test_dpfp_multiplies_neighbours_of_both_signs() -> None:
    x = torch.tensor([1.0, -2.0, 3.0])  # z = [1, 0, 3, 0, 2, 0]
    expected = [0, 0, 0, 0, 0, 0, 2, 0, 3, 0, 6, 0]
    torch.testing.assert_close(maps.DPFPFeatureMap(3, nu=2)(x), torch.tensor(expected).float())
    expected = [-3, 0, 0, -3, 0, 0, 0, 0, 3, 0, 0, 3]  # z = [1, 0, 3, -1, 0, -3]
    torch.testing.assert_close(maps.DPFPFeatureMap(3, nu=2, signed=True)(x), torch.tensor(expected).float())
    for nu in (0, 6):
        with pytest.raises(ValueError, match=f"nu: expected from 1 to 2 \\* head_dim - 1 = 5, got {nu}"):
            maps.DPFPFeatureMap(3, nu=nu)


def test_products_of_linear_maps() -> None:
    x, y = pair()
    t2r, hadamard, outer = drawn("t2r wide"), drawn("hadamard"), drawn("outer product, full")
    torch.testing.assert_close(t2r(x), (x @ t2r.layer.weight.T + t2r.layer.bias).clamp(min=0))
    torch.testing.assert_close(hadamard(x), hadamard.layer1(x) * hadamard.layer2(x))
    expected = dot(outer.layer1(x), outer.layer1(y)) * dot(outer.layer2(x), outer.layer2(y))
    torch.testing.assert_close(dot(outer(x), outer(y)), expected)
    half = drawn("outer product")
    first, second = half.layer1(x), half.layer2(x)
    expected = torch.stack([first[..., i] * second[..., j] for i in range(3) for j in range(i, 3)], -1)
    torch.testing.assert_close(half(x), expected)


@pytest.mark.parametrize("exact", [False, True])
def test_polysketch_is_made_of_the_square_of_its_sketch(exact: bool) -> None:
    (x, y), phi = pair(), drawn("polysketch of degree 8")
    phi.exact = exact

    def sketch(x: torch.Tensor) -> torch.Tensor:
        x = F.layer_norm(x, (D,), phi.gamma, phi.beta)
        for first, second in zip(phi.sketches1, phi.sketches2):
            x = first(x) * second(x) / (3 if exact else D) ** 0.5
        return x

    square, of_squares = dot(sketch(x), sketch(y)).square(), dot(sketch(x).square(), sketch(y).square())
    torch.testing.assert_close(dot(phi(x), phi(y)), square if exact else (square + of_squares) / 2)
    for degree in (0, 1, 3, 6):
        with pytest.raises(ValueError, match=f"degree: expected a power of two above 1, got {degree}"):
            maps.LearnablePolySketchNonNegativeFeatureMap(D, degree=degree)


def test_activations_as_maps() -> None:
    x, _ = pair()
    torch.testing.assert_close(maps.ReLUFeatureMap()(x), x.clamp(min=0))
    torch.testing.assert_close(maps.SquaredReLUFeatureMap()(x), x.clamp(min=0) ** 2)
    torch.testing.assert_close(maps.GELUFeatureMap()(x), F.gelu(x, approximate="tanh"))
    torch.testing.assert_close(maps.SwishFeatureMap()(x), x / (1 + (-x).exp()))
    torch.testing.assert_close(maps.SigmoidFeatureMap()(x), 1 / (1 + (-x).exp()))
    torch.testing.assert_close(maps.ELUFeatureMap()(x), torch.where(x > 0, x + 1, x.exp()))
