"""For tests of this project and of those that build on it: a pytest plugin, inputs, strategies, conformance, and a
driver that compiles kernels without a GPU.
"""

from typing import TYPE_CHECKING

#: Public name -> the module that defines it. The imports below say the same to type checkers.
_MENU = {
    "assert_close": "fla.utils.numerics",
    "check_error_budget": "fla.utils.numerics",
    "get_abs_err": "fla.utils.numerics",
    "get_err_ratio": "fla.utils.numerics",
}

__all__ = list(_MENU)

if TYPE_CHECKING:
    from fla.utils.numerics import (
        assert_close as assert_close,
        check_error_budget as check_error_budget,
        get_abs_err as get_abs_err,
        get_err_ratio as get_err_ratio,
    )
else:
    from fla.utils.menu import lazy_names

    __getattr__ = lazy_names(__name__, _MENU)


def __dir__() -> list[str]:
    return sorted(__all__)
