"""The models of transformers itself that look for ``fla``: they run on our functions, and as they run on their own."""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel
from transformers.utils import import_utils

import fla.ops.gated_delta_rule.api
import fla.ops.kda.api
from fla.modules import FusedRMSNormGated, ShortConvolution
from fla.utils.numerics import assert_close, check_error_budget, get_err_ratio

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
    "eos_token_id": None,
    "pad_token_id": 0,
}
#: The layers of ``SMALL`` that are to call us.
LINEAR_LAYERS = 2
# Values wide enough that none come near zero all at once: a norm over them would divide their rounding errors by that.
HEADS = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 36,
    "linear_value_head_dim": 24,
}
# All experts see all tokens: which of them are chosen must not hang on the last bit.
EXPERTS = {"num_experts": 2, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENTS = {"q_lora_rank": None, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8}
GDN, KDA = fla.ops.gated_delta_rule.api, fla.ops.kda.api
#: Sequences whose gradients are compared.
ROWS = 6


class Ported(NamedTuple):
    """A model of transformers: its folder, class stem and config, and the module whose functions it is to call."""

    folder: str
    stem: str
    config: dict[str, Any]
    api: ModuleType

    def load(self, monkeypatch: pytest.MonkeyPatch, with_us: bool) -> PreTrainedModel:
        """The model in float32, imported as where there is a GPU, with ``fla`` or where it is not installed."""
        name = f"transformers.models.{self.folder}.modeling_{self.folder}"
        with monkeypatch.context() as patch:
            patch.delitem(sys.modules, name, raising=False)
            if not with_us:
                patch.setitem(sys.modules, "fla", None)
            # Releases such as 5.6 ask whether there is a GPU, and build our norm there; later ones just import.
            patch.setattr(import_utils, "is_flash_linear_attention_available", lambda: with_us)
            patch.setattr(torch.cuda, "current_device", lambda: "cpu")
            model_class = getattr(importlib.import_module(name), f"{self.stem}ForCausalLM")
            torch.manual_seed(0)
            config = model_class.config_class(**{**SMALL, **self.config})
            # PyTorch multiplies groups of experts at once, but not in float64.
            config._experts_implementation = "eager"
            return model_class(config).eval()  # type: ignore[no-any-return]


MODELS = [
    Ported("qwen3_next", "Qwen3Next", {**HEADS, **EXPERTS, "head_dim": 16, "shared_expert_intermediate_size": 16}, GDN),
    Ported("qwen3_5", "Qwen3_5", {**HEADS, "head_dim": 16}, GDN),
    Ported("olmo_hybrid", "OlmoHybrid", {**HEADS, "linear_num_key_heads": 4}, GDN),
    Ported("kimi_linear", "KimiLinear", {**EXPERTS, **LATENTS, "linear_num_heads": 2, "linear_head_dim": 24}, KDA),
]
#: Some came to transformers later than others.
INSTALLED = [model for model in MODELS if find_spec(f"transformers.models.{model.folder}")]
every_model = pytest.mark.parametrize("ported", INSTALLED, ids=lambda model: model.folder)


def tokens(steps: int, rows: int = 2) -> torch.Tensor:
    return torch.randint(3, 64, (rows, steps), generator=torch.Generator().manual_seed(steps))


def logits_and_gradients(model: PreTrainedModel, rows: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Each row's logits and gradients, stacked.

    A gradient has few numbers, and their errors in a row a common cause: the error of one row is one draw.
    """
    found = []
    for ids in rows:
        output = model(ids, labels=ids)
        # Of experts that see no token there is none.
        names, leaves = zip(*((name, p) for name, p in model.named_parameters() if p.requires_grad))
        gradients = torch.autograd.grad(output.loss, leaves, allow_unused=True)
        named = {name: gradient for name, gradient in zip(names, gradients) if gradient is not None}
        found.append({"logits": output.logits.detach(), **named})
    return {name: torch.stack([tensors[name] for tensors in found]) for name in found[0]}


class _Widened(TorchFunctionMode):
    """Where a model asks for float32 by name it gets float64."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        func = torch.Tensor.double if func is torch.Tensor.float else func
        named = {name: _widen(value) for name, value in (kwargs or {}).items()}
        return func(*map(_widen, args), **named)


def _widen(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value


@contextmanager
def everything_in_float64() -> Iterator[None]:
    """Within it a model of float64 parameters computes in float64 throughout."""
    torch.set_default_dtype(torch.float64)
    try:
        with _Widened():
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def count_calls(monkeypatch: pytest.MonkeyPatch, api: ModuleType) -> Counter[str]:
    """What the public functions of ``api`` run, counted as it is called."""
    calls: Counter[str] = Counter()

    def counted(form: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls[form] += 1
            return run(*args, **kwargs)

        return call

    for form, name in (("chunk", "run_chunk_gated_delta_rule"), ("recurrent", "run_recurrent_delta_rule")):
        monkeypatch.setattr(api, name, counted(form, getattr(api, name)))
    return calls


@every_model
def test_training_runs_on_us(ported: Ported, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = (ported.load(monkeypatch, with_us).train() for with_us in (False, True))
    ours.load_state_dict(theirs.state_dict())
    calls, rows = count_calls(monkeypatch, ported.api), tokens(70, ROWS).split(1)
    baseline = logits_and_gradients(theirs, rows)
    assert not calls
    result = logits_and_gradients(ours, rows)
    assert calls == {"chunk": LINEAR_LAYERS * ROWS}
    with everything_in_float64():
        truth = logits_and_gradients(theirs.double(), rows)
    for name, expected in truth.items():
        assert expected.dtype == torch.float64
        check_error_budget(name, expected, baseline[name], result[name], torch.float32)


@every_model
@torch.inference_mode()
def test_generation_runs_on_us(ported: Ported, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = (ported.load(monkeypatch, with_us) for with_us in (False, True))
    ours.load_state_dict(theirs.state_dict())
    options = {"max_new_tokens": 5, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    mask = torch.ones(2, 20, dtype=torch.long)
    mask[0, :6] = 0
    expected = theirs.generate(tokens(20), attention_mask=mask, **options)
    calls = count_calls(monkeypatch, ported.api)
    got = ours.generate(tokens(20), attention_mask=mask, **options)
    assert calls == {"chunk": LINEAR_LAYERS, "recurrent": 4 * LINEAR_LAYERS}
    with everything_in_float64():
        exact = theirs.double().generate(tokens(20), attention_mask=mask, **options)
    assert torch.equal(exact.sequences, expected.sequences)
    assert torch.equal(exact.sequences, got.sequences)
    logits = (torch.stack(output.logits) for output in (exact, expected, got))
    check_error_budget("logits", *logits, torch.float32)


@pytest.mark.own_device
@pytest.mark.parametrize("activation", ["silu", "sigmoid"])
def test_older_releases_build_their_norm_and_convolution_of_us(activation: str) -> None:
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    norm = FusedRMSNormGated(16, eps=1e-5, activation=activation, device=torch.device("cpu"), dtype=torch.float32)
    gate = {"silu": torch.nn.functional.silu, "sigmoid": torch.sigmoid}[activation]
    assert_close("norm", torch.nn.functional.rms_norm(x, (16,), eps=1e-5) * gate(-x), norm(x, -x), 1e-5)
    convolution = ShortConvolution(hidden_size=16, kernel_size=4, bias=False, activation="silu")
    whole, _ = convolution(x, cache=None, output_final_state=True)
    first, cache = convolution(x[:, :4], cache=None, output_final_state=True)
    last, _ = convolution(x[:, 4:], cache=cache, output_final_state=True, use_precomputed=True)
    assert_close("convolution", whole, torch.cat([first, last], 1), 1e-5)


def test_packed_rows_stay_apart_where_the_boundaries_come_as_cu_seq_lens_q(monkeypatch: pytest.MonkeyPatch) -> None:
    ported = next((model for model in INSTALLED if model.folder == "kimi_linear"), None)
    if ported is None:
        pytest.skip("this transformers has no Kimi-Linear")
    # A filter of one step: transformers' own convolution knows no boundaries.
    model = ported._replace(config={**ported.config, "linear_conv_kernel_dim": 1}).load(monkeypatch, with_us=True)
    lengths = (5, 1, 70, 24)
    ids = tokens(sum(lengths))[:1]
    ends = torch.tensor([0, *lengths]).cumsum(0).int()
    packing = {f"cu_seq_lens_{of}": ends for of in "qk"} | {f"max_length_{of}": max(lengths) for of in "qk"}
    position_ids = torch.cat([torch.arange(length) for length in lengths])[None]
    with torch.no_grad():
        one_by_one = torch.cat([model(row, use_cache=False).logits for row in ids.split(lengths, 1)], 1)
        packed = model(ids, position_ids=position_ids, use_cache=False, **packing).logits
        mixed = model(ids, position_ids=position_ids, use_cache=False).logits
    assert_close("logits", one_by_one, packed, 2e-5)
    assert get_err_ratio(one_by_one, mixed) > 1e-2
