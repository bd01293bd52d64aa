"""BitNet's ternary weights in 2 bits: the same model, smaller, and no longer to be trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, Trainer, TrainingArguments

from fla.layers import BitAttention
from fla.models import BitNetConfig, BitNetForCausalLM, BitNetModel, TransformerConfig, TransformerForCausalLM

SMALL: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_heads": 2, "vocab_size": 64}
SMALL |= {"intermediate_size": 48, "initializer_range": 0.2, "eos_token_id": None}


def build(**options: Any) -> BitNetForCausalLM:
    torch.manual_seed(0)
    return BitNetForCausalLM(BitNetConfig(**{**SMALL, **options})).eval()


def tokens(batch: int, steps: int) -> torch.Tensor:
    return torch.randint(3, 64, (batch, steps), generator=torch.Generator().manual_seed(steps))


def bytes_of(model: torch.nn.Module) -> int:
    return sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("mlp", [False, True])
def test_packed_it_is_the_same_model(mlp: bool, dtype: torch.dtype, tmp_path: Path) -> None:
    model, ids = build(use_bitlinear_mlp=mlp).to(dtype), tokens(2, 20)
    mask = (torch.arange(20) >= torch.tensor([[0], [7]])).long()
    options = {"attention_mask": mask, "max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    logits, continued, size = model(ids).logits, model.generate(ids, **options), bytes_of(model)
    model.pack_weights()
    assert torch.equal(model(ids).logits, logits)
    assert torch.equal(model.generate(ids, **options), continued)
    assert bytes_of(model) < size
    model.save_pretrained(tmp_path)
    loaded, report = BitNetForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert loaded.config.packed_weights
    assert bytes_of(loaded) == bytes_of(model)
    assert torch.equal(loaded(ids).logits, logits)
    base = BitNetModel.from_pretrained(tmp_path)
    assert torch.equal(base(ids).last_hidden_state, model.model(ids).last_hidden_state)


def test_packed_in_another_dtype(tmp_path: Path) -> None:
    model, ids = build(), tokens(1, 20)
    expected = model.bfloat16()(ids).logits
    model.float().pack_weights()
    model.save_pretrained(tmp_path)
    loaded = BitNetForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {tensor.dtype for tensor in loaded.state_dict().values()} <= {torch.bfloat16, torch.float32, torch.uint8}
    assert (loaded(ids).logits - expected).norm() <= 0.01 * expected.norm()


@pytest.mark.parametrize(
    ("mlp", "expected"), [(False, (2_728_988_672, 2_024_345_984)), (True, (2_729_455_616, 571_486_880))]
)
def test_memory_of_the_model_of_1_billion(mlp: bool, expected: tuple[int, int]) -> None:
    with torch.device("meta"):
        model = BitNetForCausalLM(BitNetConfig(use_bitlinear_mlp=mlp)).bfloat16()
    linear = 24 * (4 * 2048 * 2048 + (3 * 2048 * 5632 if mlp else 0))
    layers = 24 * (7 if mlp else 4)
    before = bytes_of(model)
    model.pack_weights()
    # Two bytes become a quarter of one, and every layer has a scale.
    assert before - bytes_of(model) == linear * 2 - linear // 4 - layers * 4
    assert (before, bytes_of(model)) == expected


@pytest.mark.own_device
def test_a_packed_model_refuses_training(tmp_path: Path) -> None:
    model, ids = build(), tokens(1, 10)
    model.train().pack_weights()
    assert not model.training
    settings = TrainingArguments(str(tmp_path), max_steps=1, report_to="none", disable_tqdm=True)
    trainer = Trainer(model, settings, train_dataset=[{"input_ids": ids[0], "labels": ids[0]}])
    with pytest.raises(RuntimeError, match="packed weights of 2 bits cannot be trained"):
        trainer.train()
    # Gradients of what is not packed, such as those of the head, can still be looked at.
    ids = ids.to(model.device)
    model.eval()(ids, labels=ids).loss.backward()
    assert model.lm_head.weight.grad.abs().max() > 0


def test_ternary_mlps_are_not_split() -> None:
    assert any(".mlp." in name for name in build().config.base_model_tp_plan)
    assert not any("proj" in name for name in build(use_bitlinear_mlp=True).config.base_model_tp_plan)
    tied = build(use_bitlinear_mlp=True, tie_word_embeddings=True).config.base_model_tp_plan
    assert list(tied) == ["embeddings"]


def test_bitnet_of_transformers_stays_its_own() -> None:
    assert type(AutoConfig.for_model("bitnet")).__module__.startswith("transformers.")
    assert BitNetConfig(**SMALL).model_type == "bitnet"


def test_ternary_attention_in_another_model_can_be_rolled_back() -> None:
    options = {**SMALL, "attn": {"layers": [1], "mixer": "BitAttention", "num_heads": 4, "window_size": None}}
    model = TransformerForCausalLM(TransformerConfig(**options)).eval()
    assert type(model.model.layers[1].attn) is BitAttention
    assert not model._is_stateful
