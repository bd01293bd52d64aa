"""Linear attention and state-space models for long text: kernels, modules, layers and models.

This is the menu: every public name of the four parts can be imported from here, and a part is
loaded the first time one of its names is asked for. ``import fla`` itself loads neither torch
nor transformers.
"""

import pkgutil

__path__ = pkgutil.extend_path(__path__, __name__)
__version__ = "1.0.0.dev0"

try:
    from fla.utils.menu import lazy_menu
except ImportError as error:
    raise ImportError(
        "fla.utils is not that of fla-ops: another package wrote into the folder fla; uninstall flash-linear-attention "
        "and fla-core, then reinstall fla"
    ) from error

__getattr__, __dir__, __all__ = lazy_menu(__name__)
__all__ += ["__version__"]
