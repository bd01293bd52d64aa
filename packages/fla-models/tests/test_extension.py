"""The three ways in which a model may differ from the base: its mixer, its block, values shared across layers."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from transformers import AutoConfig

from fla.layers import Mixer
from fla.layers.base import Call
from fla.models import GLAConfig
from fla.models.base.modeling import Block, FLAForCausalLM, FLAModel, Shared
from fla.models.base.registration import register


class Toy(Mixer):
    """Scales by the layer's own share of a common parameter and adds what the first layer saw."""

    takes: ClassVar[tuple[str, ...]] = ("scales", "first")
    hands_on: ClassVar[tuple[str, ...]] = ("first",)

    def __init__(self, hidden_size: int, mode: str = "chunk", layer_idx: int | None = None) -> None:
        super().__init__(hidden_size, layer_idx)
        self.mode = mode

    def mix(self, x: torch.Tensor, call: Call, **shared: Any) -> tuple[torch.Tensor, ...]:
        first = shared.get("first")
        first = x if first is None else first
        return x * shared["scales"][self.layer_idx] + first, first


class Doubled(Block):
    """A block of another kind."""

    def forward(
        self, hidden_states: torch.Tensor, *shared: torch.Tensor | None, **call: Any
    ) -> tuple[torch.Tensor, ...]:
        mixed, _, _, first = self.attn(hidden_states, **call, **dict(zip(self.attn.takes, shared)))
        return 2 * mixed, first


class ToyModel(FLAModel):
    config: GLAConfig
    mixer_class = Toy
    mixer_keys: ClassVar[dict[str, str]] = {"mode": "attn_mode"}
    block_class = Doubled

    def __init__(self, config: GLAConfig) -> None:
        super().__init__(config)
        self.scales = nn.Parameter(torch.tensor([2.0, 3.0, 5.0]))

    def shared_values(self) -> Shared:
        return {"scales": self.scales.softmax(0).cumsum(0)}


class ToyForCausalLM(FLAForCausalLM):
    config: GLAConfig
    model_class = ToyModel


@pytest.mark.parametrize("checkpointing", [None, "plain", "reentrant"])
def test_mixer_block_and_shared_values_may_differ(checkpointing: str | None) -> None:
    torch.manual_seed(0)
    config = GLAConfig(
        hidden_size=8, num_hidden_layers=3, vocab_size=16, attn_mode="fused_recurrent", eos_token_id=None
    )
    lm, ids = ToyForCausalLM(config).train(), torch.randint(16, (1, 5))
    assert [block.attn.mode for block in lm.model.layers] == ["fused_recurrent"] * 3
    if checkpointing:
        lm.gradient_checkpointing_enable({"use_reentrant": checkpointing == "reentrant"})
    lm(ids).logits.square().sum().backward()

    shares = lm.model.scales.softmax(0).cumsum(0)
    first = x = lm.model.embeddings(ids)
    for share in shares:
        x = 2 * (x * share + first)
    (expected,) = torch.autograd.grad(lm.lm_head(lm.model.norm(x)).square().sum(), lm.model.scales)
    torch.testing.assert_close(lm.model.scales.grad, expected)


class TakenConfig(GLAConfig):
    model_type = "jamba"


class TakenModel(ToyModel):
    config_class = TakenConfig


class TakenForCausalLM(ToyForCausalLM):
    config_class = TakenConfig


def test_a_model_type_of_transformers_stays_its_own() -> None:
    register(TakenConfig, TakenModel, TakenForCausalLM)
    assert type(AutoConfig.for_model("jamba")).__module__.startswith("transformers.")
