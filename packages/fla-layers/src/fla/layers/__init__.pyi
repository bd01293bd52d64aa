"""The public names: each once, for Python and for type checkers alike."""

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

__all__: list[str]
