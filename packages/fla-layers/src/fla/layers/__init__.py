"""Token mixers: layers in which each token of a sequence takes something from those before it.

Every name is loaded when it is first asked for.
"""

from typing import TYPE_CHECKING

#: Public name -> the module that defines it. The imports below say the same to type checkers.
_MENU = {
    "ABCAttention": "fla.layers.abc",
    "Attention": "fla.layers.attn",
    "BasedLinearAttention": "fla.layers.based",
    "BitAttention": "fla.layers.bitattn",
    "Comba": "fla.layers.comba",
    "DeltaNet": "fla.layers.delta_net",
    "GatedDeltaNet": "fla.layers.gated_deltanet",
    "GatedDeltaProduct": "fla.layers.gated_deltaproduct",
    "GatedLinearAttention": "fla.layers.gla",
    "GatedShortConvolution": "fla.layers.gated_conv",
    "GatedSlotAttention": "fla.layers.gsa",
    "HGRNAttention": "fla.layers.hgrn",
    "HGRN2Attention": "fla.layers.hgrn2",
    "KimiDeltaAttention": "fla.layers.kda",
    "LightNetAttention": "fla.layers.lightnet",
    "LinearAttention": "fla.layers.linear_attn",
    "Mamba": "fla.layers.mamba",
    "Mamba2": "fla.layers.mamba2",
    "Mixer": "fla.layers.base",
    "MultiScaleRetention": "fla.layers.multiscale_retention",
    "MultiheadLatentAttention": "fla.layers.mla",
    "ReBasedLinearAttention": "fla.layers.rebased",
    "SimpleGatedLinearAttention": "fla.layers.simple_gla",
    "RWKV6Attention": "fla.layers.rwkv6",
    "RWKV6FeedForward": "fla.layers.rwkv6",
    "RWKV7Attention": "fla.layers.rwkv7",
    "RWKV7FeedForward": "fla.layers.rwkv7",
    "StateCache": "fla.layers.cache",
}

__all__ = list(_MENU)

if TYPE_CHECKING:
    from fla.layers.abc import ABCAttention as ABCAttention
    from fla.layers.attn import Attention as Attention
    from fla.layers.base import Mixer as Mixer
    from fla.layers.based import BasedLinearAttention as BasedLinearAttention
    from fla.layers.bitattn import BitAttention as BitAttention
    from fla.layers.cache import StateCache as StateCache
    from fla.layers.comba import Comba as Comba
    from fla.layers.delta_net import DeltaNet as DeltaNet
    from fla.layers.gated_conv import GatedShortConvolution as GatedShortConvolution
    from fla.layers.gated_deltanet import GatedDeltaNet as GatedDeltaNet
    from fla.layers.gated_deltaproduct import GatedDeltaProduct as GatedDeltaProduct
    from fla.layers.gla import GatedLinearAttention as GatedLinearAttention
    from fla.layers.gsa import GatedSlotAttention as GatedSlotAttention
    from fla.layers.hgrn import HGRNAttention as HGRNAttention
    from fla.layers.hgrn2 import HGRN2Attention as HGRN2Attention
    from fla.layers.kda import KimiDeltaAttention as KimiDeltaAttention
    from fla.layers.lightnet import LightNetAttention as LightNetAttention
    from fla.layers.linear_attn import LinearAttention as LinearAttention
    from fla.layers.mamba import Mamba as Mamba
    from fla.layers.mamba2 import Mamba2 as Mamba2
    from fla.layers.mla import MultiheadLatentAttention as MultiheadLatentAttention
    from fla.layers.multiscale_retention import MultiScaleRetention as MultiScaleRetention
    from fla.layers.rebased import ReBasedLinearAttention as ReBasedLinearAttention
    from fla.layers.rwkv6 import RWKV6Attention as RWKV6Attention, RWKV6FeedForward as RWKV6FeedForward
    from fla.layers.rwkv7 import RWKV7Attention as RWKV7Attention, RWKV7FeedForward as RWKV7FeedForward
    from fla.layers.simple_gla import SimpleGatedLinearAttention as SimpleGatedLinearAttention
else:
    from fla.utils.menu import lazy_names

    __getattr__ = lazy_names(__name__, _MENU)


def __dir__() -> list[str]:
    return sorted(__all__)
