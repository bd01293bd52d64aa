"""The command that writes text."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.modeling_utils import PreTrainedModel

import fla.models
from fla.models import generate
from fla.models.commands.command_line import exit_code
from fla.models.commands.run_folder import mark_whole
from fla.models.train.tokenizer import END_OF_TEXT, VOCABULARY, byte_tokenizer

# The command finds its device by itself.
pytestmark = pytest.mark.own_device


def command(*arguments: str | Path) -> int:
    return exit_code("generate", lambda: generate.main([*map(str, arguments)]))


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    torch.manual_seed(0)
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), END_OF_TEXT)
    config = fla.models.GLAConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_heads=2, **ids)
    model = fla.models.GLAForCausalLM(config).eval()
    with torch.no_grad():
        model.lm_head.weight[END_OF_TEXT:] = 0
        model.lm_head.weight[:32] = 0
        model.lm_head.weight[127:] = 0
    return model


@pytest.fixture
def checkpoint(model: PreTrainedModel, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def greedy(model: Any, prompt: bytes, tokens: int) -> str:
    """The likeliest continuation, without a cache."""
    ids = list(prompt) or [END_OF_TEXT]
    for _ in range(tokens):
        ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return bytes(token for token in ids if token < 256).decode()


@pytest.mark.parametrize("prompt", ["def ", ""])
def test_greedy_text_is_the_likeliest(
    model: PreTrainedModel, checkpoint: Path, capsys: pytest.CaptureFixture[str], prompt: str
) -> None:
    assert command(checkpoint, "--prompt", prompt, "--tokens", "20", "--greedy") == 0
    assert capsys.readouterr().out == greedy(model, prompt.encode(), 20) + "\n"


def test_samples_repeat_by_seed(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def sample(seed: int, *more: str) -> str:
        assert command(checkpoint, "--prompt", "x", "--tokens", "30", "--seed", str(seed), *more) == 0
        return capsys.readouterr().out

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)
    assert sample(1, "--top-p", "1e-6") == sample(2, "--temperature", "1e-4"), "both come to the likeliest"


def test_of_a_stopped_run_the_last_whole_checkpoint_writes(
    model: PreTrainedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    for steps, whole in ((9, True), (10, True), (11, False)):
        folder = run / f"checkpoint-{steps}"
        model.save_pretrained(folder)
        byte_tokenizer().save_pretrained(folder)
        if steps != 10:
            (folder / "model.safetensors").write_bytes(b"")
        if whole:
            mark_whole(folder)
    assert command(run, "--prompt", "def ", "--tokens", "5", "--greedy") == 0
    assert capsys.readouterr().out == greedy(model, b"def ", 5) + "\n"


def break_nothing(folder: Path) -> None:
    pass


def cut_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def drop_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def drop_one_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.attn.q_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def drop_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


def change_model_type(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "unheard_of"}))


def garble_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (cut_weights, ["{model}"], "{model} cannot be loaded: "),
        (drop_weights, ["{model}"], "{model} cannot be loaded: "),
        (drop_one_weight, ["{model}"], "{model} cannot be loaded: 1 weights are missing, model.layers.1.attn.q_proj"),
        (drop_tokenizer, ["{model}"], "{model} cannot be loaded: "),
        (change_model_type, ["{model}"], "{model} cannot be loaded: "),
        (garble_config, ["{model}"], "{model} cannot be loaded: "),
        (break_nothing, ["{model}/config.json"], "{model}/config.json is a file; expected the folder of a checkpoint"),
        (break_nothing, ["{model}/.."], "{model}/.. holds no whole checkpoint, nor a model's config.json"),
        (break_nothing, ["{model}/nothing"], "{model}/nothing: no folder, and no model of that name could be loaded"),
        (break_nothing, [], "the following arguments are required: CHECKPOINT"),
        (break_nothing, ["{model}", "--tokens", "-1"], "argument --tokens: expected a whole number above 0, got '-1'"),
        (break_nothing, ["{model}", "--temperature", "0"], "argument --temperature: expected a number above 0"),
        (break_nothing, ["{model}", "--top-p", "2"], "argument --top-p: expected a number above 0 and at most 1"),
        (break_nothing, ["{model}", "--seed", "-1"], "argument --seed: expected a whole number from 0 to 2**32 - 1"),
    ],
)
def test_bad_input_ends_in_one_line(
    change: Any, arguments: list[str], message: str, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(checkpoint)
    assert command(*(argument.replace("{model}", str(checkpoint)) for argument in arguments)) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("generate: error: " + message.replace("{model}", str(checkpoint)))
    assert shown.count("\n") == 1


def test_a_reader_that_leaves_early_is_no_error(checkpoint: Path) -> None:
    line = [sys.executable, "-m", "fla.models.generate", str(checkpoint), "--tokens", "50"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
    assert errors == ""
