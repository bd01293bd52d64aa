"""A family's reference takes what its public function does, and its older name computes the same."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from inspect import signature
from typing import Any, NamedTuple

import pytest
import torch

from fla.ops._shared.cases import Operands, draw, flatten
from fla.utils.spec import specs

#: What a reference need not take, and why.
LEFT_OUT = {
    "backend": "the reference is one",
    **dict.fromkeys(("disable_recompute", "max_seqlen", "max_seqlen_k", "safe_gate"), "steers kernels alone"),
    **dict.fromkeys(("cu_seqlens_cpu", "cu_seq_lens_q"), "api.py makes cu_seqlens of it"),
    **dict.fromkeys(
        (
            "use_qk_l2norm_in_kernel",
            "use_gate_in_kernel",
            "A_log",
            "dt_bias",
            "lower_bound",
            "use_beta_sigmoid_in_kernel",
            "allow_neg_eigval",
        ),
        "api.py makes q, k, g and beta with it before any backend sees them",
    ),
    "return_intermediate_states": "refused by api.py",
}


class Family(NamedTuple):
    """The public function with the most parameters, the older name of the reference, and what both are called with."""

    function: str
    alias: str
    operands: Operands


QKV = {"q": "B T H K", "k": "B T H K", "v": "B T H V"}
GROUPED = {**QKV, "v": "B T HV V"}
RKV = {"r": "B T H K", "k": "B T H K", "v": "B T H V"}
GATES = {"g": "B T HV -", "beta": "B T HV +"}
LOW_RANK = {"a": "B T H K |", "b": "B T H K |", "initial_state": "N H K V"}
STATE = {"initial_state": "N HV K V"}
V_FIRST = {"initial_state": "N HV V K"}
SLOTS = {**QKV, "s": "B T H M"}
FAMILIES = {
    "abc": Family("chunk_abc", "naive_recurrent_abc", SLOTS),
    "attn": Family("parallel_attn", "naive_parallel_attn", QKV),
    "based": Family("parallel_based", "naive_recurrent_based", QKV),
    "comba": Family("chunk_comba", "naive_recurrent_comba", {**GROUPED, "p": "B T H K", **GATES, **STATE}),
    "delta_rule": Family(
        "fused_recurrent_delta_rule", "naive_recurrent_delta_rule", {**QKV, "beta": "B T H +", **LOW_RANK}
    ),
    "gated_delta_product": Family(
        "chunk_gated_delta_product",
        "naive_recurrent_gated_delta_product",
        {"q": "B T H K", "k": "B S H K |", "v": "B S HV V", "g": "B T HV -", "beta": "B S HV +", **STATE},
    ),
    "gated_delta_rule": Family(
        "fused_recurrent_gated_delta_rule",
        "naive_recurrent_gated_delta_rule",
        {**GROUPED, **GATES, "gk": "B T HV K -", "gv": "B T HV V -", **V_FIRST},
    ),
    "generalized_delta_rule": Family(
        "fused_recurrent_dplr_delta_rule", "naive_recurrent_dplr_delta_rule", {**QKV, "gk": "B T H K -", **LOW_RANK}
    ),
    "gla": Family(
        "fused_recurrent_gla",
        "naive_recurrent_gla",
        {**QKV, "gk": "B T H K -", "gv": "B T H V -", "initial_state": "N H V K"},
    ),
    "gsa": Family("fused_recurrent_gsa", "naive_recurrent_gsa", {**SLOTS, "g": "B T H M -"}),
    "hgrn": Family("chunk_hgrn", "naive_recurrent_hgrn", {"x": "B T K", "g": "B T K -", "initial_state": "N K"}),
    "kda": Family("chunk_kda", "naive_recurrent_kda", {**GROUPED, **GATES, "g": "B T HV K -", **V_FIRST}),
    "lightning_attn": Family("fused_recurrent_lightning_attn", "naive_recurrent_lightning_attn", {**GROUPED, **STATE}),
    "linear_attn": Family("fused_recurrent_linear_attn", "naive_recurrent_linear_attn", QKV),
    "mamba": Family(
        "selective_scan",
        "naive_selective_scan",
        {"u": "B K T", "delta": "B K T", "A": "K M -", "B": "B M T", "C": "B M T", "D": "K", "z": "B K T"},
    ),
    "rebased": Family("parallel_rebased", "naive_recurrent_rebased", QKV),
    "retention": Family("fused_recurrent_retention", "naive_retention", {**GROUPED, **V_FIRST}),
    "rwkv6": Family(
        "fused_recurrent_rwkv6",
        "naive_recurrent_rwkv6",
        {**RKV, "w": "B T H K -", "u": "H K", "initial_state": "N H K V"},
    ),
    "rwkv7": Family("fused_recurrent_rwkv7", "naive_recurrent_rwkv7", {**RKV, "w": "B T H K -", **LOW_RANK}),
    "simple_gla": Family(
        "fused_recurrent_simple_gla",
        "naive_recurrent_simple_gla",
        {**GROUPED, "g": "B T HV -", "g_gamma": "HV -", **V_FIRST},
    ),
    "ssd": Family(
        "fused_recurrent_ssd",
        "naive_recurrent_ssd",
        {"x": "B T HV V", "dt": "B T HV", "A": "HV -", "B": "B T H K", "C": "B T H K", "D": "HV", "z": "B T HV V"},
    ),
}
SIZES = {"B": 1, "T": 5, "S": 10, "H": 2, "HV": 4, "K": 6, "V": 3, "M": 7, "N": 2}
#: Two sequences in one row, and of every other option what is not its default.
OPTIONS: dict[str, Any] = {
    "cu_seqlens": torch.tensor([0, 2, 5]),
    "scale": 0.3,
    "output_final_state": True,
    "reverse": True,
    "state_v_first": True,
    "normalize": True,
    "num_householder": 2,
    "layer_idx": 1,
    "num_layers": 3,
}
every_family = pytest.mark.parametrize("family", FAMILIES)


def of(family: str, name: str) -> Callable[..., Any]:
    module = import_module(f"fla.ops.{family}")
    assert name in module.__all__
    function: Callable[..., Any] = getattr(module, name)
    return function


def defaults(function: Callable[..., Any]) -> dict[str, Any]:
    return {name: parameter.default for name, parameter in signature(function).parameters.items()}


def test_no_family_is_left_out() -> None:
    assert {spec.name for spec in specs("fla.ops")} == set(FAMILIES)


@every_family
def test_a_reference_takes_what_the_public_function_does(family: str) -> None:
    public, own = defaults(of(family, FAMILIES[family].function)), defaults(of(family, f"{family}_reference"))
    expected = {name: default for name, default in public.items() if name in own or name not in LEFT_OUT}
    assert list(own.items()) == list(expected.items())


@every_family
def test_its_older_name_computes_the_same(family: str) -> None:
    alias, reference = of(family, FAMILIES[family].alias), of(family, f"{family}_reference")
    tensors = draw(FAMILIES[family].operands, SIZES, torch.Generator().manual_seed(0), torch.float64)
    names = defaults(reference)
    options = {name: value for name, value in OPTIONS.items() if name in names}
    arguments = {name: x for name, x in (tensors | options).items() if name in names}
    expected = tuple(flatten(reference(**arguments)))
    in_its_order = [arguments.get(name, default) for name, default in defaults(alias).items()]
    for results in (alias(**arguments), alias(*in_its_order)):
        assert all(map(torch.equal, expected, flatten(results)))
