"""The public names: each once, for Python and for type checkers alike."""

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
    hardware as hardware,
)
from fla.utils.numerics import (
    assert_close as assert_close,
    check_error_budget as check_error_budget,
    error_budget as error_budget,
    get_abs_err as get_abs_err,
    get_err_ratio as get_err_ratio,
)

__all__: list[str]
