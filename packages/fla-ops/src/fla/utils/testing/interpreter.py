"""bfloat16 in Triton's interpreter, which keeps its bits as 16-bit integers and, as of 3.7, computes with those.

:func:`teach_bfloat16` makes casts round to nearest, and arithmetic and matrix products work on the numbers. It can go
when the interpreter does this itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

_QUIET_NAN = np.uint16(0x7FC0)


def teach_bfloat16() -> None:
    """Replace what the interpreter does with bfloat16; once in a process, after ``TRITON_INTERPRET=1``."""
    for name, replacement in _REPLACEMENTS.items():
        setattr(InterpreterBuilder, name, replacement(getattr(InterpreterBuilder, name)))
    InterpreterBuilder.get_bf16 = _constant


def to_float32(bits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The numbers that bfloat16 bits stand for."""
    return np.asarray((np.ascontiguousarray(bits).astype(np.uint32) << 16).view(np.float32))


def to_bfloat16(numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The bits of the nearest bfloat16 numbers, the even one of two."""
    single = np.ascontiguousarray(numbers, dtype=np.float32)
    bits = single.view(np.uint32)
    rounded = ((bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    rounded[np.isnan(single)] = _QUIET_NAN
    return np.asarray(rounded.reshape(np.shape(numbers)))


def _is_bfloat16(dtype: Any) -> bool:
    return bool(dtype.scalar == tl.bfloat16)


def _numbers(handle: Any) -> np.ndarray[Any, Any]:
    return to_float32(handle.data) if _is_bfloat16(handle.dtype) else np.asarray(handle.data)


def _as_bfloat16(result: np.ndarray[Any, Any]) -> Any:
    """Comparisons stay what they are."""
    return TensorHandle(result if result.dtype == bool else to_bfloat16(result), tl.bfloat16)


def _cast(original: Callable[..., Any]) -> Callable[..., Any]:
    def cast(self: Any, source: Any, to: Any, *rounding: Any) -> Any:
        if _is_bfloat16(to):
            return TensorHandle(to_bfloat16(_numbers(source)), tl.bfloat16)
        if _is_bfloat16(source.dtype):
            return original(self, TensorHandle(to_float32(source.data), tl.float32), to, *rounding)
        return original(self, source, to, *rounding)

    return cast


def _elementwise(original: Callable[..., Any]) -> Callable[..., Any]:
    """Of one or several operands, which are followed by what NumPy does with them."""

    def compute(self: Any, first: Any, *others: Any) -> Any:
        if not _is_bfloat16(first.dtype):
            return original(self, first, *others)
        *operands, operation = (first, *others)
        return _as_bfloat16(operation(*map(_numbers, operands)))

    return compute


def _dot(original: Callable[..., Any]) -> Callable[..., Any]:
    def dot(self: Any, a: Any, b: Any, c: Any, *precision: Any) -> Any:
        if not _is_bfloat16(a.dtype):
            return original(self, a, b, c, *precision)
        return TensorHandle(np.matmul(_numbers(a), _numbers(b)) + c.data, c.dtype.scalar)

    return dot


def _constant(_: Any, value: float) -> Any:
    return TensorHandle(to_bfloat16(np.array([value], dtype=np.float32)), tl.bfloat16)


_REPLACEMENTS = {
    "cast_impl": _cast,
    "create_fp_to_fp": _cast,
    "unary_op": _elementwise,
    "binary_op": _elementwise,
    "create_dot": _dot,
}
