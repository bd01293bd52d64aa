"""What other projects import from ``fla``, by the names they use, and how they find it."""

import inspect
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import pytest
from torch.autograd import Function
from transformers.utils import import_utils

NAMES = [
    "fla.layers.utils.get_layer_cache",
    "fla.layers.utils.get_unpad_data",
    "fla.layers.utils.index_first_axis",
    "fla.layers.utils.pad_input",
    "fla.layers.utils.repad_hidden_states",
    "fla.layers.utils.unpad_hidden_states",
    "fla.layers.utils.unpad_input",
    "fla.layers.utils.update_layer_cache",
    "fla.modules.FusedRMSNormGated",
    "fla.modules.ShortConvolution",
    "fla.modules.convolution.causal_conv1d",
    "fla.modules.l2norm.l2norm",
    "fla.ops.gated_delta_rule.chunk_gated_delta_rule",
    "fla.ops.gated_delta_rule.fused_recurrent_gated_delta_rule",
    "fla.ops.kda.chunk_kda",
    "fla.ops.kda.fused_recurrent_kda",
    "fla.ops.kda.gate.fused_kda_gate",
]
FUNCTIONS = [
    "fla.ops._engines.delta.ops.ChunkGatedDeltaRuleFunction",
    "fla.ops._engines.delta_steps.ops.FusedRecurrentFunction",
]
#: transformers passes these, and drops those that a signature does not show.
PASSED = {"g", "beta", "initial_state", "output_final_state", "use_qk_l2norm_in_kernel", "cu_seqlens", "cu_seq_lens_q"}


def resolve(path: str) -> Any:
    module, name = path.rsplit(".", 1)
    return getattr(import_module(module), name)


@pytest.fixture
def available() -> Iterator[Callable[[], bool]]:
    """What transformers asks before it takes us; its answer is kept, so it is forgotten before and after."""
    ask = import_utils.is_flash_linear_attention_available
    ask.cache_clear()
    yield ask
    ask.cache_clear()


@pytest.mark.parametrize("path", NAMES)
def test_the_name_is_there(path: str) -> None:
    assert callable(resolve(path))


@pytest.mark.parametrize("path", FUNCTIONS)
def test_the_autograd_function_is_there(path: str) -> None:
    assert issubclass(resolve(path), Function)


@pytest.mark.parametrize("path", [path for path in NAMES if ".chunk_" in path or ".fused_recurrent_" in path])
def test_what_transformers_passes_is_named(path: str) -> None:
    parameters = inspect.signature(resolve(path)).parameters
    assert parameters.keys() >= PASSED
    assert list(parameters)[:3] == ["q", "k", "v"]


def test_transformers_takes_our_distribution_for_present(
    available: Callable[[], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_utils, "is_torch_cuda_available", lambda: True)
    assert available()
