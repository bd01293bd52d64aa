"""The boundaries of packed sequences, in every spelling that a function names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import pytest
import torch

import fla.ops
from fla.ops.gla import chunk_gla
from fla.ops.kda import chunk_kda, fused_recurrent_kda
from fla.ops.rwkv7 import fused_k_rwkv7
from fla.utils import backends
from fla.utils.validation import resolve_boundaries

#: By the name of a parameter, of any function.
SHAPES: dict[str, tuple[int, ...]] = dict.fromkeys(("q", "k", "v", "r", "w", "a", "b", "p", "gk"), (1, 12, 2, 8))
SHAPES |= {"beta": (1, 12, 2), "s": (1, 12, 2, 6), "u": (2, 8), "g": (1, 12, 2)}
#: What is different elsewhere.
SHAPES_OF: dict[Callable[..., Any], dict[str, tuple[int, ...]]] = {
    chunk_gla: {"g": (1, 12, 2, 8)},
    chunk_kda: {"g": (1, 12, 2, 8)},
    fused_recurrent_kda: {"g": (1, 12, 2, 8)},
    fused_k_rwkv7: {"k": (1, 12, 8), "a": (1, 12, 8), "ka": (8,)},
}
ENDS = (0, 4, 12)
OTHER_ENDS = (0, 8, 12)
SPELLINGS = ("cu_seqlens_cpu", "cu_seq_lens_q")


def public_functions() -> Iterator[Callable[..., Any]]:
    """Every function that a family exports."""
    for family in iter_modules(fla.ops.__path__, "fla.ops."):
        if family.ispkg:
            yield from filter(inspect.isfunction, vars(import_module(family.name)).values())


#: Found by their signatures, so that none is forgotten.
NAMING = sorted(
    {
        (function.__name__, spelling, function)
        for function in public_functions()
        for spelling in SPELLINGS
        if spelling in inspect.signature(function).parameters
    },
    key=lambda found: found[:2],
)
every_spelling = pytest.mark.parametrize(
    ("spelling", "function"), [found[1:] for found in NAMING], ids=[" ".join(found[:2]) for found in NAMING]
)


def inputs_of(function: Callable[..., Any], device: torch.device) -> dict[str, Any]:
    """What the function cannot do without, by its parameters' names."""
    generator = torch.Generator().manual_seed(0)
    inputs: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.default is not inspect.Parameter.empty:
            continue
        if name == "num_householder":
            inputs[name] = 1
            continue
        shape = SHAPES_OF.get(function, {}).get(name) or SHAPES[name]
        x = 0.4 * torch.rand(shape, generator=generator)
        inputs[name] = (-x if name in ("g", "w", "gk") else x).to(device)
    return inputs


def output(function: Callable[..., Any], inputs: dict[str, Any], **boundaries: Any) -> torch.Tensor:
    result = function(**inputs, **boundaries)
    o: torch.Tensor = result if isinstance(result, torch.Tensor) else result[0]
    return o


def test_functions_that_name_a_spelling_are_found() -> None:
    assert {"chunk_gla", "chunk_kda", "chunk_gsa", "parallel_simple_gla"} <= {name for name, *_ in NAMING}
    assert {name for name, spelling, _ in NAMING if spelling == "cu_seq_lens_q"} == {
        "chunk_kda",
        "fused_recurrent_kda",
        "chunk_gated_delta_rule",
        "fused_recurrent_gated_delta_rule",
    }


@every_spelling
def test_any_spelling_alone_is_used(spelling: str, function: Callable[..., Any], device: torch.device) -> None:
    inputs = inputs_of(function, device)
    given = torch.tensor(ENDS, device=None if spelling == "cu_seqlens_cpu" else device)
    expected = output(function, inputs, cu_seqlens=torch.tensor(ENDS, device=device))
    assert torch.equal(expected, output(function, inputs, **{spelling: given}))
    if function is not fused_k_rwkv7:  # there every step is for itself
        assert not torch.equal(expected, output(function, inputs))


@every_spelling
def test_any_spelling_alone_is_used_inside_a_graph(
    spelling: str, function: Callable[..., Any], device: torch.device
) -> None:
    torch._dynamo.reset()
    inputs = inputs_of(function, device)
    given = torch.tensor(ENDS, device=None if spelling == "cu_seqlens_cpu" else device)

    @torch.compile(fullgraph=True, backend="eager")
    def compiled(boundaries: torch.Tensor, inputs: dict[str, Any]) -> torch.Tensor:
        return output(function, inputs, **{spelling: boundaries})

    assert torch.equal(output(function, inputs, **{spelling: given}), compiled(given, inputs))


@every_spelling
def test_spellings_that_disagree_are_refused_on_the_cpu(spelling: str, function: Callable[..., Any]) -> None:
    inputs, ends = inputs_of(function, torch.device("cpu")), torch.tensor(ENDS)
    output(function, inputs, cu_seqlens=ends, **{spelling: ends.int()})
    with pytest.raises(ValueError, match=f"{spelling}: expected the boundaries of cu_seqlens, 4 at 1, got 8"):
        output(function, inputs, cu_seqlens=ends, **{spelling: torch.tensor(OTHER_ENDS)})
    with pytest.raises(ValueError, match=rf"{spelling}: expected shape \[3\] as cu_seqlens, got \[2\]"):
        output(function, inputs, cu_seqlens=ends, **{spelling: ends[::2].contiguous()})
    with pytest.raises(TypeError, match=f"{spelling}: expected an int32 or int64 tensor"):
        output(function, inputs, **{spelling: ends.float()})


def test_values_on_a_device_are_compared_with_the_debugging_switch_only(monkeypatch: pytest.MonkeyPatch) -> None:
    # A tensor on "meta" has no values: reading them raises.
    x, ends = torch.zeros(1, 12, device="meta"), torch.tensor(ENDS)
    on_device = ends.to("meta")
    assert resolve_boundaries(x, on_device, ends) is on_device
    monkeypatch.setattr(backends, "DEBUG", True)
    with pytest.raises(NotImplementedError, match="meta"):
        resolve_boundaries(x, on_device, ends)


@pytest.mark.parametrize("ends", [(0, 4, 11), (1, 4, 12), (0, 13, 12)])
def test_boundaries_on_the_cpu_are_checked(ends: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="cu_seqlens_cpu: (expected to start at 0 and end at T=12|entries must not)"):
        resolve_boundaries(torch.zeros(1, 12), None, torch.tensor(ends))


def test_boundaries_for_the_cpu_are_not_taken_from_elsewhere() -> None:
    with pytest.raises(ValueError, match="cu_seqlens_cpu: expected on cpu, got meta"):
        resolve_boundaries(torch.zeros(1, 12), None, torch.tensor(ENDS, device="meta"))
