"""For tests of this project and of those that build on it: a pytest plugin, inputs, strategies, conformance, and a
driver that compiles kernels without a GPU.
"""

from fla.utils.numerics import assert_close, check_error_budget, get_abs_err, get_err_ratio

__all__ = ["assert_close", "check_error_budget", "get_abs_err", "get_err_ratio"]
