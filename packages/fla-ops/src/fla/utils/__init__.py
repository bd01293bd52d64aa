"""Hardware, environment and numerical checks. ``python -m fla.utils`` tells what works here.

Public: ``environment``, ``hardware``, ``numerics``, ``doctor`` and ``testing``. The other modules are shared by the
five wheels and may change in any release. Importing this package loads nothing heavy, PyTorch included.
"""

from typing import TYPE_CHECKING

# A module of that name exists: unless the function is bound first, importing the module later would hide it.
from fla.utils.hardware import hardware as hardware

#: Public name -> the module that defines it. The imports below say the same to type checkers.
_MENU = {
    "Environment": "fla.utils.environment",
    "Finding": "fla.utils.environment",
    "ForeignOwner": "fla.utils.environment",
    "Package": "fla.utils.environment",
    "survey": "fla.utils.environment",
    "Hardware": "fla.utils.hardware",
    "IS_AMD": "fla.utils.hardware",
    "IS_INTEL": "fla.utils.hardware",
    "IS_NVIDIA": "fla.utils.hardware",
    "IS_NVIDIA_BLACKWELL": "fla.utils.hardware",
    "IS_NVIDIA_HOPPER": "fla.utils.hardware",
    "IS_TF32_SUPPORTED": "fla.utils.hardware",
    "IS_TMA_SUPPORTED": "fla.utils.hardware",
    "check_shared_mem": "fla.utils.hardware",
    "device": "fla.utils.hardware",
    "hardware": "fla.utils.hardware",
    "assert_close": "fla.utils.numerics",
    "check_error_budget": "fla.utils.numerics",
    "error_budget": "fla.utils.numerics",
    "get_abs_err": "fla.utils.numerics",
    "get_err_ratio": "fla.utils.numerics",
}

__all__ = list(_MENU)

if TYPE_CHECKING:
    from fla.utils.environment import (
        Environment as Environment,
        Finding as Finding,
        ForeignOwner as ForeignOwner,
        Package as Package,
        survey as survey,
    )
    from fla.utils.hardware import (
        IS_AMD as IS_AMD,
        IS_INTEL as IS_INTEL,
        IS_NVIDIA as IS_NVIDIA,
        IS_NVIDIA_BLACKWELL as IS_NVIDIA_BLACKWELL,
        IS_NVIDIA_HOPPER as IS_NVIDIA_HOPPER,
        IS_TF32_SUPPORTED as IS_TF32_SUPPORTED,
        IS_TMA_SUPPORTED as IS_TMA_SUPPORTED,
        Hardware as Hardware,
        check_shared_mem as check_shared_mem,
        device as device,
    )
    from fla.utils.numerics import (
        assert_close as assert_close,
        check_error_budget as check_error_budget,
        error_budget as error_budget,
        get_abs_err as get_abs_err,
        get_err_ratio as get_err_ratio,
    )
else:
    from fla.utils.menu import lazy_names

    __getattr__ = lazy_names(__name__, _MENU)


def __dir__() -> list[str]:
    return sorted(__all__)
