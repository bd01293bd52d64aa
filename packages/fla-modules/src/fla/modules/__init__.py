"""The parts that layers and models are built of: norms, gated norms, convolutions, rotary embeddings, feature maps,
MLPs, losses.

Every name is loaded when it is first asked for. A function that is named as its module is taken from there, such as
``from fla.modules.token_shift import token_shift``.
"""

from fla.utils.menu import lazy_menu

__getattr__, __dir__, __all__ = lazy_menu(__name__)
