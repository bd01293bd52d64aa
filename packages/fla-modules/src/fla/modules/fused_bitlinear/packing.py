"""Ternary weights in 2 bits each, for inference."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from fla.modules.fused_bitlinear.api import to_ternary
from fla.modules.fused_bitlinear.layer import BitLinear, norm_and_quantise
from fla.modules.layernorm import RMSNorm

#: Weights in a byte.
PER_BYTE = 4
#: A byte of zeros: each 2 bits hold the weight plus one.
ZEROS = 0b01010101


def pack_ternary(signs: torch.Tensor) -> torch.Tensor:
    """Pack -1, 0 and 1 into 2 bits each.

    Args:
        signs: ``[..., D]``, any dtype.

    Returns:
        uint8 ``[..., ceil(D / 4)]``: a byte holds four neighbours, the first in its lowest bits, each plus one. The
        last byte is filled up with zeros.

    Raises:
        ValueError: another value than -1, 0 and 1.
    """
    if not ((signs == 0) | (signs.abs() == 1)).all():
        raise ValueError("signs: expected -1, 0 and 1 only")
    codes = F.pad((signs + 1).to(torch.uint8), (0, -signs.shape[-1] % PER_BYTE), value=1)
    first, second, third, fourth = codes.unflatten(-1, (-1, PER_BYTE)).unbind(-1)
    packed: torch.Tensor = first | second << 2 | third << 4 | fourth << 6
    return packed


def unpack_ternary(packed: torch.Tensor, features: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The inverse of :func:`pack_ternary`.

    Args:
        packed: uint8 ``[..., ceil(D / 4)]``.
        features: D.
        dtype: of the result.

    Returns:
        ``[..., D]`` of -1, 0 and 1.

    Raises:
        TypeError: packed is not uint8.
        ValueError: packed does not hold as many weights.
    """
    if packed.dtype != torch.uint8:
        raise TypeError(f"packed: expected uint8, got {packed.dtype}")
    if packed.shape[-1] != -(-features // PER_BYTE):
        raise ValueError(f"packed: expected shape [..., ceil(D / 4)] with D={features}, got {list(packed.shape)}")
    codes = torch.stack([packed >> shift & 3 for shift in (0, 2, 4, 6)], -1).flatten(-2)
    return codes[..., :features].to(dtype) - 1


class PackedBitLinear(nn.Module):
    """A :class:`BitLinear` for inference, with weights of 2 bits; made by :meth:`from_bitlinear`.

    It gives what the layer gave that it was made from. The weights are unpacked whenever they are used, so what is
    saved is memory, not time. They are buffers: nothing here can be trained, but gradients of the input exist.

    Args:
        in_features: channels in.
        out_features: channels out.
        bias: whether there is one.
        norm_eps: added to the mean square in the norm.
        device: of all tensors.
        dtype: of the bias and of the norm.
    """

    weight: torch.Tensor
    scale: torch.Tensor
    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = False,
        norm_eps: float = 1e-8,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        dtype = torch.get_default_dtype() if dtype is None else dtype
        packed_shape = out_features, -(-in_features // PER_BYTE)
        self.register_buffer("weight", torch.full(packed_shape, ZEROS, device=device, dtype=torch.uint8))
        scale_dtype = torch.promote_types(dtype, torch.float32)
        self.register_buffer("scale", torch.zeros((), device=device, dtype=scale_dtype))
        given = nn.Parameter(torch.zeros(out_features, device=device, dtype=dtype)) if bias else None
        self.register_parameter("bias", given)
        self.norm = RMSNorm(in_features, eps=norm_eps, device=device, dtype=dtype)
        self.requires_grad_(False)

    @classmethod
    @torch.no_grad()
    def from_bitlinear(cls, layer: BitLinear) -> PackedBitLinear:
        """The layer packed; its bias and norm are copied."""
        weight = layer.weight
        bias = layer.bias is not None
        packed = cls(layer.in_features, layer.out_features, bias, layer.norm.eps, weight.device, weight.dtype)
        # On the meta device, where models are laid out, there is nothing to pack.
        if not weight.is_meta:
            signs, scale = to_ternary(weight)
            values = {"weight": pack_ternary(signs), "scale": scale}
            packed.load_state_dict({**layer.state_dict(), **values})
        return packed.train(layer.training)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[..., in_features]`` -> ``[..., out_features]``.

        Raises:
            RuntimeError: in training mode.
        """
        if self.training:
            raise RuntimeError(
                "packed weights of 2 bits cannot be trained: call eval() for inference, or train the layers that they "
                "were packed from"
            )
        weight = unpack_ternary(self.weight, self.in_features, x.dtype) * self.scale.to(x.dtype)
        return F.linear(norm_and_quantise(self.norm, x), weight, self.bias)

    def extra_repr(self) -> str:
        """Sizes, as PyTorch's own layer shows them."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


def pack_bitlinear(module: nn.Module) -> nn.Module:
    """Replace every :class:`BitLinear` below ``module`` by its :class:`PackedBitLinear`, in place.

    Returns:
        ``module``, or what takes its place where it is a :class:`BitLinear` itself.
    """
    if isinstance(module, BitLinear):
        return PackedBitLinear.from_bitlinear(module)
    for name, child in module.named_children():
        setattr(module, name, pack_bitlinear(child))
    return module
