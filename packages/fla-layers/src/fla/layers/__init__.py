"""Token mixers: layers in which each token of a sequence takes something from those before it.

Every name is loaded when it is first asked for.
"""

from fla.utils.menu import lazy_menu

__getattr__, __dir__, __all__ = lazy_menu(__name__)
