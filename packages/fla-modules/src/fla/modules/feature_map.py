"""Feature maps of linear attention: ``phi(q) . phi(k)`` stands for the similarity of a query and a key.

All of them take ``[..., head_dim]`` and keep the dtype: products and sums are taken in that of x.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from fla.modules._initial import set_initial_values
from fla.modules.activations import ACT2FN


def flatten_diag_outer_product(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """``[..., d]`` twice to ``[..., d (d + 1) / 2]``: ``x_i y_j`` for i <= j, row by row."""
    i, j = torch.triu_indices(x.shape[-1], x.shape[-1], device=x.device)
    return x.index_select(-1, i) * y.index_select(-1, j)


def flatten_diag_outer_product_off1(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``[..., d]`` twice to ``x_i y_j`` for i < j, row by row, ``[..., d (d - 1) / 2]``; and for i = j ``[..., d]``."""
    i, j = torch.triu_indices(x.shape[-1], x.shape[-1], 1, device=x.device)
    return x.index_select(-1, i) * y.index_select(-1, j), x * y


def symmetric_square(x: torch.Tensor) -> torch.Tensor:
    r"""``[..., d]`` to ``[..., d (d + 1) / 2]``, such that the dot product of two results is :math:`(x \cdot y)^2`.

    The squares of the entries, then :math:`\sqrt 2\, x_i x_j` for i < j: the outer product holds these twice.
    """
    pairs, squares = flatten_diag_outer_product_off1(x, x)
    return torch.cat([squares, math.sqrt(2) * pairs], -1)


class _IdentityLinear(nn.Linear):
    """A linear layer that starts as the identity, whatever the others of a model start from."""

    def reset_parameters(self) -> None:
        """Set the initial values."""
        set_initial_values(self)

    def initial_values(self, num_hidden_layers: int) -> dict[str, torch.Tensor]:
        """Weight one on the diagonal, bias zero."""
        return {"weight": torch.eye(self.in_features), "bias": torch.zeros(self.in_features)}


class HedgehogFeatureMap(nn.Module):
    r"""The Hedgehog map (arXiv 2402.04347), ``[..., D]`` to ``[..., 2 D]``; its layer starts as the identity.

    .. math:: \phi(x) = \mathrm{softmax}([2 W x + 2 b, -2 W x - 2 b])

    Args:
        head_dim: D.
    """

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.layer = _IdentityLinear(head_dim, head_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[..., D]`` -> ``[..., 2 D]``."""
        x = 2 * self.layer(x)
        return torch.cat([x, -x], -1).softmax(-1)


class T2RFeatureMap(nn.Module):
    r"""The map of transformer-to-RNN (arXiv 2103.13076): :math:`\phi(x) = \mathrm{relu}(W x + b)`.

    Args:
        head_dim: D.
        dot_dim: channels of the result; D unless given.
        bias: learn b.
    """

    def __init__(self, head_dim: int, dot_dim: int | None = None, bias: bool = False) -> None:
        super().__init__()
        self.layer = nn.Linear(head_dim, head_dim if dot_dim is None else dot_dim, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[..., D]`` -> ``[..., dot_dim]``."""
        return F.relu(self.layer(x))


class DPFPFeatureMap(nn.Module):
    r"""Deterministic parameter-free projection (arXiv 2102.11174), ``[..., D]`` to ``[..., 2 D nu]``.

    .. math:: z = [\mathrm{relu}(x), \mathrm{relu}(-x)], \qquad
        \phi(x) = [z \odot \mathrm{roll}(z, 1), \dots, z \odot \mathrm{roll}(z, nu)]

    Args:
        head_dim: D.
        nu: how many rolls are taken, of the ``2 D - 1`` that differ from z.
        signed: take ``-relu(x)`` for ``relu(-x)``, as flash-linear-attention did before 0.6.0; the paper does not.

    Raises:
        ValueError: there are not so many rolls.
    """

    def __init__(self, head_dim: int, nu: int = 4, signed: bool = False) -> None:
        super().__init__()
        if not 1 <= nu < 2 * head_dim:
            raise ValueError(f"nu: expected from 1 to 2 * head_dim - 1 = {2 * head_dim - 1}, got {nu}")
        self.nu = nu
        self.signed = signed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[..., D]`` -> ``[..., 2 D nu]``."""
        positive = F.relu(x)
        z = torch.cat([positive, -positive if self.signed else F.relu(-x)], -1)
        return torch.cat([z * z.roll(shift, -1) for shift in range(1, self.nu + 1)], -1)


class HadamardFeatureMap(nn.Module):
    r"""The elementwise product of two affine maps: :math:`\phi(x) = (W_1 x + b_1) \odot (W_2 x + b_2)`.

    Args:
        head_dim: D.
    """

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.layer1 = nn.Linear(head_dim, head_dim)
        self.layer2 = nn.Linear(head_dim, head_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[..., D]`` -> ``[..., D]``."""
        return self.layer1(x) * self.layer2(x)  # type: ignore[no-any-return]


class LearnableOuterProductFeatureMap(nn.Module):
    r"""The outer product of two linear maps, of which the upper triangle is kept.

    .. math:: \phi(x) = [(W_1 x)_i (W_2 x)_j]_{i \le j}

    Args:
        head_dim: D.
        feature_dim: channels R of each linear map.
        full: keep all of the product, so that :math:`\phi(x) \cdot \phi(y) = (W_1 x \cdot W_1 y)(W_2 x \cdot W_2 y)`;
            flash-linear-attention does not.
    """

    def __init__(self, head_dim: int, feature_dim: int, full: bool = False) -> None:
        super().__init__()
        self.full = full
        self.layer1 = nn.Linear(head_dim, feature_dim, bias=False)
        self.layer2 = nn.Linear(head_dim, feature_dim, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[..., D]`` -> ``[..., R (R + 1) / 2]``, or ``[..., R * R]`` with ``full``."""
        first, second = self.layer1(x), self.layer2(x)
        if not self.full:
            return flatten_diag_outer_product(first, second)
        product: torch.Tensor = first.unsqueeze(-1) * second.unsqueeze(-2)
        return product.flatten(-2)


class LearnablePolySketchNonNegativeFeatureMap(nn.Module):
    r"""A learned sketch of a polynomial kernel, such that no similarity is negative (after arXiv 2310.01655).

    .. math:: s_0 = \mathrm{layer\_norm}(x), \qquad s_{i+1} = (M_i s_i \odot N_i s_i) / \sqrt D, \qquad
        \phi(x) = [s(x)_i\, s(x)_j]_{i \le j}

    Each stage doubles the degree of s in its input. There are ``log2(degree) - 1`` stages and at least one. The
    similarity is the mean of :math:`(s(x) \cdot s(y))^2` and of :math:`\sum_i s(x)_i^2 s(y)_i^2`.

    Args:
        head_dim: D.
        sketch_size: channels R of the sketch; D unless given.
        degree: of the polynomial, a power of two; degree 2 has the stage of degree 4.
        exact: as the paper has it: :math:`\phi(x) \cdot \phi(y) = (s(x) \cdot s(y))^2`, and stages over
            :math:`\sqrt R`; flash-linear-attention does not.

    Raises:
        ValueError: the degree is not a power of two above 1.
    """

    undecayed: ClassVar[tuple[str, ...]] = ("gamma", "beta")

    def __init__(self, head_dim: int, sketch_size: int | None = None, degree: int = 2, exact: bool = False) -> None:
        super().__init__()
        if degree < 2 or degree & (degree - 1):
            raise ValueError(f"degree: expected a power of two above 1, got {degree}")
        self.head_dim = head_dim
        self.sketch_size = head_dim if sketch_size is None else sketch_size
        self.exact = exact
        self.gamma = nn.Parameter(torch.ones(head_dim))
        self.beta = nn.Parameter(torch.zeros(head_dim))
        stages = max(1, degree.bit_length() - 2)
        widths = [head_dim] + [self.sketch_size] * (stages - 1)
        self.sketches1 = nn.ModuleList(nn.Linear(width, self.sketch_size, bias=False) for width in widths)
        self.sketches2 = nn.ModuleList(nn.Linear(width, self.sketch_size, bias=False) for width in widths)

    def initial_values(self, num_hidden_layers: int) -> dict[str, torch.Tensor]:
        """Gamma one, beta zero; the sketches start as other projections."""
        return {"gamma": torch.ones(self.head_dim), "beta": torch.zeros(self.head_dim)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[..., D]`` -> ``[..., R (R + 1) / 2]``."""
        x = F.layer_norm(x, (self.head_dim,), self.gamma, self.beta)
        scale = (self.sketch_size if self.exact else self.head_dim) ** -0.5
        for first, second in zip(self.sketches1, self.sketches2):
            x = first(x) * second(x) * scale
        return symmetric_square(x) if self.exact else flatten_diag_outer_product(x, x)


class TaylorFeatureMap(nn.Module):
    r"""The second-order Taylor expansion of the exponential (Based, arXiv 2402.18668).

    .. math:: \phi(x) \cdot \phi(y) = 1 + s + s^2 / 2, \qquad s = x \cdot y / \sqrt D

    ``[1, x / D^(1/4), x (x) x / sqrt(2 D)]``, of the symmetric product one half: ``1 + D + D (D + 1) / 2`` channels.

    Args:
        head_dim: D.
    """

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[..., D]`` -> ``[..., 1 + D + D (D + 1) / 2]``."""
        x = x * self.head_dim**-0.25
        return torch.cat([torch.ones_like(x[..., :1]), x, symmetric_square(x) * math.sqrt(0.5)], -1)


class RebasedFeatureMap(nn.Module):
    r"""The learned square of ReBased (arXiv 2402.10644).

    .. math:: z = gamma \odot \mathrm{layer\_norm}(x) + beta, \qquad
        \phi(x) \cdot \phi(y) = (z(x) \cdot z(y))^2 / D

    Args:
        head_dim: D.
        use_gamma: learn gamma, ones at first.
        use_beta: learn beta, zeros at first.
        normalize: take the layer norm of x; else x as it is.
    """

    undecayed: ClassVar[tuple[str, ...]] = ("gamma", "beta")
    gamma: nn.Parameter | None
    beta: nn.Parameter | None

    def __init__(self, head_dim: int, use_gamma: bool = True, use_beta: bool = True, normalize: bool = True) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.normalize = normalize
        self.register_parameter("gamma", nn.Parameter(torch.ones(head_dim)) if use_gamma else None)
        self.register_parameter("beta", nn.Parameter(torch.zeros(head_dim)) if use_beta else None)

    def initial_values(self, num_hidden_layers: int) -> dict[str, torch.Tensor]:
        """Gamma one, beta zero."""
        values = {"gamma": torch.ones(self.head_dim), "beta": torch.zeros(self.head_dim)}
        return {name: value for name, value in values.items() if getattr(self, name) is not None}

    def forward(self, x: torch.Tensor, flatten: bool = True) -> torch.Tensor:
        """``[..., D]`` -> ``[..., D (D + 1) / 2]``, or z ``[..., D]`` itself without ``flatten``."""
        # Under autocast x is in half precision, and PyTorch wants all in one dtype.
        gamma, beta = (None if p is None else p.to(x.dtype) for p in (self.gamma, self.beta))
        if self.normalize:
            x = F.layer_norm(x, (self.head_dim,), gamma, beta)
        else:
            x = x if gamma is None else x * gamma
            x = x if beta is None else x + beta
        return symmetric_square(x) * self.head_dim**-0.5 if flatten else x


class ElementwiseFeatureMap(nn.Module):
    """An activation as a feature map."""

    activation: ClassVar[str]
    """Its name in ``ACT2FN``."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[..., D]`` -> ``[..., D]``."""
        return ACT2FN[self.activation](x)


class ReLUFeatureMap(ElementwiseFeatureMap):
    """``max(x, 0)``."""

    activation = "relu"


class SquaredReLUFeatureMap(ElementwiseFeatureMap):
    """``max(x, 0) ** 2`` (arXiv 2109.08668)."""

    activation = "sqrelu"


class GELUFeatureMap(ElementwiseFeatureMap):
    """GELU by its tanh approximation (arXiv 1606.08415)."""

    activation = "gelu"


class SwishFeatureMap(ElementwiseFeatureMap):
    """``x * sigmoid(x)`` (arXiv 1710.05941)."""

    activation = "swish"


class SigmoidFeatureMap(ElementwiseFeatureMap):
    """``1 / (1 + exp(-x))``."""

    activation = "sigmoid"


class ELUFeatureMap(ElementwiseFeatureMap):
    """``elu(x) + 1``, above 0 everywhere (arXiv 2006.16236)."""

    activation = "elu"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[..., D]`` -> ``[..., D]``."""
        return super().forward(x) + 1
