"""Based (arXiv 2402.18668) as a language model: linear attention among attention windows and short convolutions."""

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict

from fla.layers import BasedLinearAttention, GatedShortConvolution, Mixer
from fla.models.base.configuration import FLAConfig
from fla.models.base.hybrid import mixer_of
from fla.models.base.modeling import FLAForCausalLM, FLAModel
from fla.models.base.registration import register

WINDOW = 64


@strict
class BasedConfig(FLAConfig):
    """The config of :class:`BasedForCausalLM`.

    Keys that :class:`FLAConfig` does not have are arguments of :class:`fla.layers.BasedLinearAttention`; ``attn_mode``
    is its ``mode``, and ``num_kv_heads`` its ``num_key_value_heads``.

    Args:
        conv_layers: indices of the layers that are gated convolutions.
        conv_size: their width.

    Where neither ``conv_layers`` nor ``attn`` is given, the layers are mixed about as in the paper: of every five the
    second is linear attention, the fourth attention with a window, and the others are convolutions.

    Raises:
        ValueError: a convolution that is no layer, or an attention layer too.
    """

    model_type = "based"
    attn_mode: str = "parallel"
    feature_dim: int = 16
    num_heads: int = 16
    num_kv_heads: int | None = None
    conv_layers: list[int] | None = None
    conv_size: int = 3

    def __post_init__(self, **kwargs: Any) -> None:
        layers = range(self.num_hidden_layers)
        if self.conv_layers is None and self.attn is None:
            self.conv_layers = [layer for layer in layers if layer % 5 in (0, 2, 4)]
            windows = [layer for layer in layers if layer % 5 == 3]
            if windows:
                self.attn = {"layers": windows, "num_heads": self.num_heads, "window_size": WINDOW}
        self.conv_layers = list(self.conv_layers or [])
        super().__post_init__(**kwargs)

    def check(self) -> None:
        """Check as the base does, and that convolutions are in layers that exist and are not attention too."""
        super().check()
        layers = range(self.num_hidden_layers)
        wrong = [layer for layer in self.conv_layers or [] if layer not in layers or mixer_of(self.attn, layer)]
        if wrong:
            raise ValueError(
                f"conv_layers: expected layers from 0 to {self.num_hidden_layers - 1} that attn does not list, "
                f"got {wrong}"
            )


class BasedModel(FLAModel):
    """Blocks of Based's linear attention, attention windows and short convolutions."""

    config: BasedConfig
    mixer_class = BasedLinearAttention
    mixer_keys: ClassVar[dict[str, str]] = {"mode": "attn_mode", "num_key_value_heads": "num_kv_heads"}

    def make_mixer(self, layer_idx: int) -> Mixer:
        """The mixer of a layer as in the base, or a gated convolution where ``config.conv_layers`` says so."""
        if layer_idx in (self.config.conv_layers or []):
            return GatedShortConvolution(self.config.hidden_size, self.config.conv_size, layer_idx=layer_idx)
        return super().make_mixer(layer_idx)


class BasedForCausalLM(FLAForCausalLM):
    """The language model Based (arXiv 2402.18668)."""

    config: BasedConfig
    model_class = BasedModel


register(BasedConfig, BasedModel, BasedForCausalLM)
