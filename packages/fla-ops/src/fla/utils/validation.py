"""Checks on the arguments of public functions, with messages that name the argument and the fix.

Shared by the five wheels; not public: it may change in any release.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import wraps
from typing import Any, TypeVar

import torch

from fla.utils import backends

FLOATING_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
MAX_HEAD_DIM = 256


#: What a remembered check keeps of what it has passed; the oldest goes first.
MOST_PASSED = 1024
_PLAIN = frozenset((torch.Tensor, torch.nn.Parameter))
_Result = TypeVar("_Result")


def remembered(check: Callable[..., _Result]) -> Callable[..., _Result]:
    """A check that is made once for arguments of one form: tensors of equal shape, dtype and device, all else equal.

    It must look at nothing but the form, and not at the values of tensors.
    """
    passed: dict[Hashable, _Result] = {}

    @wraps(check)
    def run(*args: Any, **kwargs: Any) -> _Result:
        if torch.compiler.is_compiling():
            return check(*args, **kwargs)
        form: list[Hashable] = [*kwargs]
        try:
            _add_form(form, args)
            _add_form(form, kwargs.values())
            key = tuple(form)
            if key in passed:
                return passed[key]
        except TypeError:  # of something that has no form
            return check(*args, **kwargs)
        result = check(*args, **kwargs)
        while len(passed) >= MOST_PASSED:
            passed.pop(next(iter(passed)), None)
        passed[key] = result
        return result

    return run


def _add_form(form: list[Hashable], values: Iterable[Any]) -> None:
    """Add the form of each value.

    Raises:
        TypeError: a tensor is more than memory.
    """
    for x in values:
        if x is None or x is False:
            form.append(x)
        elif type(x) in _PLAIN:
            form += (x.shape, x.dtype, x.device)
        elif isinstance(x, torch.Tensor):
            raise TypeError
        elif type(x) is dict:
            form += x
            _add_form(form, x.values())
        elif type(x) is tuple:
            form.append(len(x))
            _add_form(form, x)
        else:
            form.append(x)


def bind_shapes(
    arguments: Mapping[str, tuple[torch.Tensor | None, str]], known: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Match each tensor against its dimension letters and return the size of each letter.

    Args:
        arguments: argument name -> ``(tensor, "B T H K")``. The first tensor to use a letter fixes its size.
            A question mark at the end of the letters lets the tensor be None.
        known: sizes that are fixed already.

    Raises:
        TypeError: an argument is not a tensor.
        ValueError: a tensor has the wrong number of dimensions or a size that disagrees with an earlier one.
    """
    sizes: dict[str, int] = dict(known or {})
    for name, (tensor, letters) in arguments.items():
        if tensor is None and letters[-1] == "?":
            continue
        pattern = letters.rstrip("?").split()
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{name}: expected a tensor [{', '.join(pattern)}], got {type(tensor).__name__}")
        shape = tensor.shape
        if len(shape) != len(pattern):
            raise ValueError(_shape_message(name, pattern, shape, sizes))
        for letter, size in zip(pattern, shape):
            if sizes.setdefault(letter, size) != size:
                raise ValueError(_shape_message(name, pattern, shape, sizes))
    return sizes


def _shape_message(name: str, pattern: Sequence[str], shape: torch.Size, sizes: Mapping[str, int]) -> str:
    known = ", ".join(f"{letter}={sizes[letter]}" for letter in pattern if letter in sizes)
    return f"{name}: expected shape [{', '.join(pattern)}] with {known}, got {list(shape)}"


def check_not_empty(sizes: Mapping[str, int]) -> None:
    """Raise ValueError when a dimension has size 0."""
    for letter, size in sizes.items():
        if size == 0:
            raise ValueError(f"dimension {letter} is 0; every dimension must be at least 1")


def count_sequences(cu_seqlens: torch.Tensor | None, batch: int) -> int:
    """The number of sequences N: the batch, or what ``cu_seqlens`` packs into it."""
    return batch if cu_seqlens is None else cu_seqlens.shape[0] - 1


def check_head_dims(sizes: Mapping[str, int], letters: str = "KV") -> None:
    """Raise ValueError when a head dimension is over what the kernels hold."""
    for letter in letters:
        if sizes[letter] > MAX_HEAD_DIM:
            raise ValueError(f"head dimension {letter}={sizes[letter]} is over the limit of {MAX_HEAD_DIM}")


def check_same_dtype(tensors: Mapping[str, torch.Tensor]) -> None:
    """Raise TypeError unless all tensors share one floating dtype."""
    first_name, first = next(iter(tensors.items()))
    if first.dtype not in FLOATING_DTYPES:
        raise TypeError(f"{first_name}: expected float32, bfloat16, float16 or float64, got {first.dtype}")
    for name, tensor in tensors.items():
        if tensor.dtype != first.dtype:
            raise TypeError(f"{name}: expected {first.dtype} as {first_name}, got {tensor.dtype}")


def check_floating(tensors: Mapping[str, torch.Tensor | None]) -> None:
    """Raise TypeError for a tensor that is not floating point; None passes."""
    for name, tensor in tensors.items():
        if tensor is not None and tensor.dtype not in FLOATING_DTYPES:
            raise TypeError(f"{name}: expected a floating dtype, got {tensor.dtype}")


def check_same_device(tensors: Mapping[str, torch.Tensor | None]) -> None:
    """Raise ValueError unless all tensors are on one device; None passes."""
    given = [(name, tensor) for name, tensor in tensors.items() if tensor is not None]
    first_name, first = given[0]
    for name, tensor in given[1:]:
        if tensor.device != first.device:
            raise ValueError(f"{name}: expected on {first.device} as {first_name}, got {tensor.device}")


def check_cu_seqlens(cu_seqlens: torch.Tensor | None, batch: int) -> None:
    """Check the form of ``cu_seqlens`` without reading its values, which would wait for the device.

    Raises:
        TypeError: not an int32 or int64 tensor.
        ValueError: not 1-D with at least two entries, or the batch is not 1.
    """
    if cu_seqlens is None:
        return
    _check_form("cu_seqlens", cu_seqlens)
    if batch != 1:
        raise ValueError(
            f"cu_seqlens: packed sequences need a batch of 1, got B={batch}; flatten [B, T, ...] to [1, B * T, ...]"
        )


def _check_form(name: str, boundaries: torch.Tensor) -> None:
    if not isinstance(boundaries, torch.Tensor) or boundaries.dtype not in (torch.int32, torch.int64):
        got = boundaries.dtype if isinstance(boundaries, torch.Tensor) else type(boundaries).__name__
        raise TypeError(f"{name}: expected an int32 or int64 tensor [N + 1], got {got}")
    if boundaries.ndim != 1 or boundaries.shape[0] < 2:
        raise ValueError(f"{name}: expected shape [N + 1] with N >= 1, got {list(boundaries.shape)}")


def resolve_boundaries(
    x: torch.Tensor,
    cu_seqlens: torch.Tensor | None,
    cu_seqlens_cpu: torch.Tensor | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
) -> torch.Tensor | None:
    """The boundaries of packed sequences in x ``[B, T, ...]``, from whichever argument has them.

    Values are read on the CPU alone, where that waits for nothing, or with ``FLA_DEBUG=1``; never inside a graph.

    Args:
        x: what is packed; the result is on its device.
        cu_seqlens: the boundaries on that device: they decide.
        cu_seqlens_cpu: the same on the CPU.
        cu_seq_lens_q: a second spelling of ``cu_seqlens``.

    Raises:
        TypeError: not an int32 or int64 tensor.
        ValueError: not 1-D, on the wrong device, not from 0 up to T, or two arguments disagree.
    """
    if cu_seq_lens_q is not None:
        _check_form("cu_seq_lens_q", cu_seq_lens_q)
        if cu_seqlens is None:
            cu_seqlens = cu_seq_lens_q
        else:
            _check_agreement(cu_seqlens, "cu_seq_lens_q", cu_seq_lens_q)
    if cu_seqlens_cpu is None:
        return cu_seqlens
    _check_form("cu_seqlens_cpu", cu_seqlens_cpu)
    if cu_seqlens_cpu.device.type != "cpu":
        raise ValueError(f"cu_seqlens_cpu: expected on cpu, got {cu_seqlens_cpu.device}; give that as cu_seqlens")
    if not isinstance(x, torch.Tensor) or x.ndim < 2:
        return cu_seqlens  # x itself is refused by the caller
    if not torch.compiler.is_compiling():
        check_boundaries(cu_seqlens_cpu.tolist(), x.shape[1], "cu_seqlens_cpu")
    if cu_seqlens is None:
        # From pageable memory the copy is taken at once, and nothing waits; pinned memory could be rewritten before.
        pinned = not torch.compiler.is_compiling() and cu_seqlens_cpu.is_pinned()
        return cu_seqlens_cpu.to(x.device, non_blocking=not pinned)
    _check_agreement(cu_seqlens, "cu_seqlens_cpu", cu_seqlens_cpu)
    return cu_seqlens


def _check_agreement(cu_seqlens: torch.Tensor, name: str, other: torch.Tensor) -> None:
    """Raise ValueError where ``other`` has other boundaries, as far as this can be seen without waiting."""
    _check_form("cu_seqlens", cu_seqlens)
    if other is cu_seqlens:
        return
    if other.shape != cu_seqlens.shape:
        raise ValueError(f"{name}: expected shape {list(cu_seqlens.shape)} as cu_seqlens, got {list(other.shape)}")
    on_cpu = cu_seqlens.device.type == other.device.type == "cpu"
    if torch.compiler.is_compiling() or not (on_cpu or backends.DEBUG):
        return
    for i, (expected, got) in enumerate(zip(cu_seqlens.tolist(), other.tolist())):
        if got != expected:
            raise ValueError(f"{name}: expected the boundaries of cu_seqlens, {expected} at {i}, got {got}")


def check_boundaries(boundaries: Sequence[int], total: int, name: str = "cu_seqlens") -> None:
    """Raise ValueError unless the boundaries start at 0, never fall and end at ``total``."""
    if boundaries[0] != 0 or boundaries[-1] != total:
        raise ValueError(f"{name}: expected to start at 0 and end at T={total}, got {boundaries[0]}..{boundaries[-1]}")
    for i in range(len(boundaries) - 1):
        if boundaries[i + 1] < boundaries[i]:
            raise ValueError(f"{name}: entries must not fall, got {boundaries[i]} then {boundaries[i + 1]} at {i + 1}")
