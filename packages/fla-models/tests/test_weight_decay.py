"""Which parameters transformers' Trainer decays, as it is and without a word from the user."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from fla.modules.weight_decay import undecayed_parameters
from model_table import MODELS, Model, every_model, tokens

# The Trainer here is told to stay on the CPU.
pytestmark = pytest.mark.own_device
#: Matrices that do not decay: the low-rank ones of RWKV.
LOW_RANK = (".lora.0.weight", ".lora.2.weight", "x_proj.0.linear.weight", "x_proj.2.weight")


def decayed(lm: nn.Module, folder: Path) -> set[str]:
    """The names in the Trainer's own group that has a weight decay."""
    ids = tokens(1, 8)[0]
    settings = TrainingArguments(str(folder), weight_decay=0.1, report_to="none", use_cpu=True)
    optimizer = Trainer(lm, settings, train_dataset=[{"input_ids": ids, "labels": ids}]).create_optimizer()
    names = {parameter: name for name, parameter in lm.named_parameters()}
    return {names[p] for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}


@every_model
def test_weights_of_projections_convolutions_and_embeddings_decay_and_nothing_else(
    model: Model, tmp_path: Path
) -> None:
    lm = model.start()
    matrices = {
        f"{path}.weight"
        for path, module in lm.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Embedding)) and not f"{path}.weight".endswith(LOW_RANK)
    }
    assert decayed(lm, tmp_path) == matrices
    assert undecayed_parameters(lm) & dict(lm.named_parameters()).keys() == (
        dict(lm.named_parameters()).keys() - matrices
    )


def test_no_module_keeps_from_decay_what_it_never_has() -> None:
    said, found = set(), set()
    for model in MODELS.values():
        lm = model.start()
        parameters = dict(lm.named_parameters())
        for path, module in lm.named_modules():
            for name in getattr(module, "undecayed", ()):
                said.add((type(module).__name__, name))
                if f"{path}.{name}".lstrip(".") in parameters:
                    found.add((type(module).__name__, name))
    # A norm has a bias where it is asked for one.
    assert {(kind, name) for kind, name in said - found if name != "bias"} == set()


def test_what_decays_in_a_model_of_transformers_stays_as_it_was(tmp_path: Path) -> None:
    lm = GPT2LMHeadModel(GPT2Config(vocab_size=16, n_embd=8, n_layer=1, n_head=2))
    names = {name for name, _ in lm.named_parameters()}
    assert decayed(lm, tmp_path) == {name for name in names if ".ln_" not in name and not name.endswith("bias")}


def test_a_norm_does_not_shrink_in_training_where_a_projection_does(tmp_path: Path) -> None:
    lm = MODELS["mamba"].start()
    before = {name: p.detach().clone() for name, p in lm.named_parameters()}
    ids = torch.tensor([0])
    # One step of a sequence that predicts nothing: there is no gradient, and what is left is the decay.
    settings = TrainingArguments(
        str(tmp_path), max_steps=1, weight_decay=0.1, learning_rate=0.1, report_to="none", use_cpu=True,
        disable_tqdm=True, save_strategy="no", lr_scheduler_type="constant",
    )  # fmt: skip
    labels = torch.tensor([-100])
    trainer = Trainer(lm, settings, train_dataset=[{"input_ids": ids, "labels": labels}])
    trainer.compute_loss = lambda model, inputs, **_: sum((p * 0).sum() for p in model.parameters())
    trainer.train()
    for name, p in lm.named_parameters():
        kept = name.endswith(("A_log", "D", "norm.weight", "norm_f.weight", "bias"))
        assert torch.allclose(p, before[name] * (1 if kept else 0.99)), name


def test_the_trainer_knows_whichever_was_imported_first() -> None:
    assert sys.modules["transformers.trainer"].get_parameter_names.__wrapped__
