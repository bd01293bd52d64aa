"""The kernels: one folder per op family, each loaded when one of its names is first asked for."""

from fla.utils.menu import lazy_menu

__getattr__, __dir__, __all__ = lazy_menu(__name__)
