"""What transformers makes of our models by their types and names."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, Trainer, TrainingArguments
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.pipelines.text_generation import TextGenerationPipeline

import fla.models
from model_table import MODELS, Model, every_model, tokens

# The Trainer here is told to stay on the CPU.
pytestmark = pytest.mark.own_device
SHARED = {name: MODELS[name] for name in ("mamba", "mamba, hybrid", "mamba2", "mamba2, hybrid", "bitnet")}
THEIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "mamba": ("Mamba", {"state_size": 8}),
    "mamba2": ("Mamba2", {"num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 1}),
    "bitnet": ("BitNet", {"intermediate_size": 48, "num_attention_heads": 2, "num_key_value_heads": 2}),
}
shared_types = pytest.mark.parametrize("model", SHARED.values(), ids=SHARED)


def trainer_of(model: Model, folder: Path, steps: int = 1, **options: Any) -> Trainer:
    ids = tokens(1, 16)[0]
    settings = TrainingArguments(
        str(folder), max_steps=steps, report_to="none", disable_tqdm=True, use_cpu=True, save_strategy="no", **options
    )
    return Trainer(model.start(), settings, train_dataset=[{"input_ids": ids, "labels": ids}] * 8)


@shared_types
def test_a_file_of_ours_has_no_type_that_transformers_reads_as_its_own(model: Model, tmp_path: Path) -> None:
    lm = model.start()
    lm.save_pretrained(tmp_path)
    assert lm.config.model_type in CONFIG_MAPPING_NAMES
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] not in CONFIG_MAPPING_NAMES
    assert type(AutoModelForCausalLM.from_config(lm.config)) is type(lm)


@shared_types
def test_a_file_with_the_type_that_transformers_has_too_loads_through_our_classes(
    model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, ids = model.build(), tokens(2, 10)
    lm.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": lm.config.model_type}))
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    loaded = type(lm).from_pretrained(tmp_path).eval()
    assert not caplog.text
    assert torch.equal(lm(ids).logits, loaded(ids).logits)
    assert loaded.config.to_dict() == lm.config.to_dict() | {"_name_or_path": str(tmp_path)}


@pytest.mark.parametrize("model_type", THEIRS)
def test_models_of_transformers_load_as_if_we_were_not_there(model_type: str, tmp_path: Path) -> None:
    stem, options = THEIRS[model_type]
    small = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 64, "pad_token_id": 0, "eos_token_id": None}
    config = getattr(transformers, f"{stem}Config")(**small, **options)
    theirs, ids = getattr(transformers, f"{stem}ForCausalLM")(config).eval(), tokens(2, 10)
    theirs.save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is type(AutoConfig.for_model(model_type)) is type(config)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert type(loaded) is type(AutoModelForCausalLM.from_config(config)) is type(theirs)
    assert torch.equal(theirs(ids).logits, loaded(ids).logits)
    assert type(AutoModel.from_pretrained(tmp_path)) is type(theirs.base_model)


def test_every_model_of_ours_is_in_these_tests() -> None:
    assert {f"{model.stem}ForCausalLM" for model in MODELS.values()} == {
        name for name in fla.models.__all__ if name.endswith("ForCausalLM")
    }


@every_model
def test_smoothed_labels_are_those_of_the_next_token(model: Model, tmp_path: Path) -> None:
    trainer, ids = trainer_of(model, tmp_path, label_smoothing_factor=0.1), tokens(2, 12)
    got = trainer.compute_loss(trainer.model, {"input_ids": ids, "labels": ids})
    logits = trainer.model(ids).logits[:, :-1].flatten(0, 1)
    assert got.item() == pytest.approx(F.cross_entropy(logits, ids[:, 1:].flatten(), label_smoothing=0.1).item(), 1e-5)


@pytest.mark.parametrize("name", ["gla", "mamba", "transformer"])
def test_with_smoothed_labels_a_model_learns_the_next_token(name: str, tmp_path: Path) -> None:
    trainer = trainer_of(MODELS[name], tmp_path, 30, label_smoothing_factor=0.1, learning_rate=1e-2)
    trainer.train()
    ids = tokens(1, 16)
    predicted = trainer.model.eval()(ids).logits.argmax(-1)
    assert (predicted[:, :-1] == ids[:, 1:]).float().mean() > 0.9


@every_model
def test_a_pipeline_knows_what_our_models_do(
    model: Model, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    pipe = TextGenerationPipeline.__new__(TextGenerationPipeline)
    pipe.model, pipe.task = model.start(), "text-generation"
    pipe.check_model_type(transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    assert not caplog.text
