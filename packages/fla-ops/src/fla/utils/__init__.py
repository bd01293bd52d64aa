"""Hardware, environment and numerical checks. ``python -m fla.utils`` tells what works here.

Public: ``environment``, ``hardware``, ``numerics``, ``doctor`` and ``testing``. The other modules are shared by the
five wheels and may change in any release. Importing this package loads nothing heavy, PyTorch included.
"""

# A module of that name exists: unless the function is bound first, importing the module later would hide it.
from fla.utils.hardware import hardware as hardware
from fla.utils.menu import lazy_menu

__getattr__, __dir__, __all__ = lazy_menu(__name__)
