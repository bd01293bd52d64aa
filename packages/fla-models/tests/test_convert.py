"""Llama, Mistral and Qwen as our Transformer and back, and the command that converts checkpoints."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import fla.models
from fla.models import convert
from fla.models.commands.command_line import exit_code
from fla.models.convert import (
    convert_checkpoint,
    mamba2_to_state_spaces,
    mamba_to_state_spaces,
    transformer_from_transformers,
    transformer_to_transformers,
)
from fla.models.train.tokenizer import byte_tokenizer
from fla.utils.numerics import agreement, assert_close

SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "vocab_size": 64, "initializer_range": 0.3}
HEADS = {"intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "rope_theta": 5e3, "factor": 4.0, "original_max_position_embeddings": 512}
WINDOW = {"use_sliding_window": True, "sliding_window": 6}
TIGHT = agreement(torch.float32, 80)


class Kind(NamedTuple):
    """A class stem of transformers', and the options of a small model."""

    stem: str
    options: dict[str, Any]

    def theirs(self, **options: Any) -> Any:
        torch.manual_seed(0)
        config = getattr(transformers, f"{self.stem}Config")(**{**SMALL, **self.options, **options})
        model = getattr(transformers, f"{self.stem}ForCausalLM")(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.add_(torch.randn_like(parameter), alpha=0.5)
        return model


KINDS = {
    "llama": Kind("Llama", {**HEADS, "num_key_value_heads": None}),
    "llama, grouped, tied, llama3": Kind("Llama", {**HEADS, "tie_word_embeddings": True, "rope_parameters": LLAMA3}),
    "llama, biases, wide heads, yarn": Kind(
        "Llama", {**HEADS, "attention_bias": True, "head_dim": 12, "rope_parameters": YARN}
    ),
    "mistral": Kind("Mistral", {**HEADS, "sliding_window": 7, "head_dim": 10}),
    "qwen2": Kind("Qwen2", {**HEADS, "rope_parameters": {"rope_type": "linear", "rope_theta": 1e6, "factor": 2.0}}),
    "qwen2, windows above": Kind("Qwen2", {**HEADS, **WINDOW, "max_window_layers": 1, "tie_word_embeddings": True}),
    "qwen3": Kind("Qwen3", {**HEADS, "head_dim": 16, "rms_norm_eps": 1e-2}),
    "qwen3, windows below, biases": Kind(
        "Qwen3",
        {
            **HEADS,
            **WINDOW,
            "head_dim": 8,
            "attention_bias": True,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "rms_norm_eps": 1e-2,
            "rope_parameters": LLAMA3,
        },
    ),
}
MAMBAS = {
    "mamba": Kind("Mamba", {"state_size": 12, "tie_word_embeddings": True}),
    "mamba2": Kind("Mamba2", {"num_heads": 4, "head_dim": 16, "n_groups": 1, "state_size": 12}),
}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def command(*arguments: str | Path) -> int:
    return exit_code("convert", lambda: convert.main([*map(str, arguments)]))


def tokens(steps: int = 40) -> torch.Tensor:
    return torch.randint(3, 64, (2, steps), generator=torch.Generator().manual_seed(steps))


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model.eval()(tokens()).logits  # type: ignore[no-any-return]


@every_kind
def test_transformers_model_and_ours_have_the_same_logits(kind: Kind) -> None:
    theirs = kind.theirs()
    ours = transformer_from_transformers(theirs)
    expected = logits(theirs)
    assert_close("logits", expected, logits(ours), TIGHT)
    assert (ours.lm_head.weight is ours.model.embeddings.weight) is theirs.config.tie_word_embeddings
    back = transformer_to_transformers(ours)
    assert type(back) is type(theirs)
    assert torch.equal(expected, logits(back))
    # The same layers by another key.
    told, known = ({**model.config.to_dict(), "max_window_layers": None} for model in (back, theirs))
    assert told == known
    ours.model.norm.weight.data.zero_()
    assert theirs.model.norm.weight.all()


@every_kind
def test_a_folder_of_transformers_goes_there_and_back(kind: Kind, tmp_path: Path) -> None:
    kind.theirs().bfloat16().save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "theirs")
    assert (tmp_path / "theirs" / "model.safetensors.index.json").exists()
    assert command(tmp_path / "theirs", tmp_path / "ours") == 0
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert type(ours) is fla.models.TransformerForCausalLM
    assert ours.dtype == torch.bfloat16
    assert torch.equal(logits(transformer_from_transformers(theirs)), logits(ours))
    assert command(tmp_path / "ours", tmp_path / "back", "--to", "transformers") == 0
    assert torch.equal(logits(theirs), logits(AutoModelForCausalLM.from_pretrained(tmp_path / "back")))


def test_what_a_kind_has_is_not_for_nothing() -> None:
    for name, changes in {
        "llama, grouped, tied, llama3": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
        "mistral": {"sliding_window": None},
        "qwen2, windows above": {"use_sliding_window": False},
        "qwen3": {"rms_norm_eps": 1e-6},
    }.items():
        changed = logits(KINDS[name].theirs(**changes))
        assert (logits(transformer_from_transformers(KINDS[name].theirs())) - changed).abs().max() > 0.01, name


def test_windows_of_some_layers_become_an_entry_of_attn() -> None:
    config = transformer_from_transformers(KINDS["qwen2, windows above"].theirs()).config
    assert (config.window_size, config.attn["layers"], config.attn["window_size"]) == (None, [1, 2], 6)
    config = transformer_from_transformers(KINDS["mistral"].theirs()).config
    assert (config.window_size, config.attn) == (7, None)


@pytest.mark.parametrize("kind", MAMBAS.values(), ids=MAMBAS)
def test_folders_of_mamba_go_there_and_back(kind: Kind, tmp_path: Path) -> None:
    theirs, model_class = kind.theirs(), getattr(fla.models, f"{kind.stem}ForCausalLM")
    theirs.save_pretrained(tmp_path / "theirs")
    assert command(tmp_path / "theirs", tmp_path / "ours", "--to", kind.stem.lower()) == 0
    assert_close("logits", logits(theirs), logits(model_class.from_pretrained(tmp_path / "ours")), TIGHT)
    assert command(tmp_path / "ours", tmp_path / "back", "--to", "transformers") == 0
    assert torch.equal(logits(theirs), logits(AutoModelForCausalLM.from_pretrained(tmp_path / "back")))
    assert command(tmp_path / "ours", tmp_path / "release", "--to", "state-spaces") == 0
    assert command(tmp_path / "release", tmp_path / "again") == 0
    assert torch.equal(*(logits(model_class.from_pretrained(tmp_path / name)) for name in ("ours", "again")))


@pytest.mark.parametrize("kind", MAMBAS.values(), ids=MAMBAS)
def test_a_release_of_state_spaces_is_a_checkpoint(kind: Kind, tmp_path: Path) -> None:
    ours = getattr(fla.models.convert, f"{kind.stem.lower()}_from_transformers")(kind.theirs())
    config, weights = {"mamba": mamba_to_state_spaces, "mamba2": mamba2_to_state_spaces}[kind.stem.lower()](ours)
    (tmp_path / "config.json").write_text(json.dumps(config))
    # The oldest form of PyTorch's files.
    torch.save(weights, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    convert_checkpoint(tmp_path, tmp_path / "ours")
    assert torch.equal(logits(ours), logits(type(ours).from_pretrained(tmp_path / "ours")))


def test_the_tokenizer_goes_along(tmp_path: Path) -> None:
    KINDS["llama"].theirs(vocab_size=300).save_pretrained(tmp_path / "theirs")
    byte_tokenizer().save_pretrained(tmp_path / "theirs")
    settings = {"temperature": 0.6, "do_sample": True, "eos_token_id": [2, 5]}
    (tmp_path / "theirs" / "generation_config.json").write_text(json.dumps(settings))
    convert_checkpoint(tmp_path / "theirs", tmp_path / "ours")
    assert AutoTokenizer.from_pretrained(tmp_path / "ours")("abc").input_ids == byte_tokenizer()("abc").input_ids
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert (loaded.generation_config.temperature, loaded.generation_config.eos_token_id) == (0.6, [2, 5])


def test_old_files_of_llama_are_understood(tmp_path: Path) -> None:
    theirs = KINDS["llama, grouped, tied, llama3"].theirs()
    theirs.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    assert "lm_head.weight" not in weights
    weights |= {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    (tmp_path / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "pytorch_model.bin")
    config = json.loads((tmp_path / "config.json").read_text())
    scaling = dict(config.pop("rope_parameters"))
    config |= {"rope_theta": scaling.pop("rope_theta"), "rope_scaling": scaling}
    (tmp_path / "config.json").write_text(json.dumps(config))
    convert_checkpoint(tmp_path, tmp_path / "ours")
    assert_close("logits", logits(theirs), logits(AutoModelForCausalLM.from_pretrained(tmp_path / "ours")), TIGHT)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("llama", {"mlp_bias": True}, "mlp_bias: our MLP has no biases"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act: expected silu, got 'gelu'"),
        ("llama", {"rope_parameters": {**YARN, "rope_type": "dynamic"}}, "scaling: rope_type 'dynamic' makes"),
        ("qwen2", {"layer_types": ["chunked_attention"] * 3}, "layer_types: .* only, got chunked_attention"),
    ],
)
def test_a_model_that_ours_cannot_be_is_refused(kind: str, options: dict[str, Any], message: str) -> None:
    theirs = KINDS[kind].theirs()
    for key, value in options.items():
        setattr(theirs.config, key, value)
    with pytest.raises(ValueError, match=message):
        transformer_from_transformers(theirs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attn": {"mixer": "GatedDeltaNet", "layers": [1], "head_dim": 8}}, "attn: .* no model with GatedDeltaNet"),
        ({"attn": {"layers": [1], "num_heads": 2}}, "num_heads: layer 1 has 2, where transformers' Llama has 4"),
        ({"attn": {"layers": [1], "num_heads": 4, "window_size": 4}, "window_size": 5}, "window_size: layer 1 has 4"),
        ({"rope_theta": None}, "rope_theta: expected a number"),
        ({"o_bias": True}, "o_bias: layer 0 has True, where transformers' Llama has False"),
        ({"qk_norm": True, "qk_norm_eps": 1e-3}, "qk_norm_eps: layer 0 has 0.001, where transformers' Qwen3 has 1e-06"),
        ({"hidden_act": "powglu"}, "hidden_act: layer 0 has powglu, where transformers' Llama has swish"),
    ],
)
def test_a_model_that_transformers_does_not_have_is_refused(options: dict[str, Any], message: str) -> None:
    config = fla.models.TransformerConfig(**SMALL, num_heads=4, **options)
    with pytest.raises(ValueError, match=message):
        transformer_to_transformers(fla.models.TransformerForCausalLM(config))


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    KINDS["llama"].theirs().save_pretrained(tmp_path / "llama")
    return tmp_path / "llama"


def set_config(folder: Path, **keys: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **keys}))


def set_weights(folder: Path, **weights: torch.Tensor | None) -> None:
    changed = {**load_file(folder / "model.safetensors"), **weights}
    kept = {name: tensor for name, tensor in changed.items() if tensor is not None}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


BROKEN = {
    "type": (lambda folder: set_config(folder, model_type="gemma2"), "expected a model_type of llama.*'gemma2'"),
    "no type": (lambda folder: (folder / "config.json").write_text("{}"), "expected a model_type of llama.*None"),
    "no json": (lambda folder: (folder / "config.json").write_text("{"), "config.json: Expecting"),
    "a list": (lambda folder: (folder / "config.json").write_text("[]"), "config.json: expected an object"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "no config.json, and the weights are none of RWKV"),
    "bad value": (lambda folder: set_config(folder, hidden_size="wide"), "hidden_size"),
    "scaling": (lambda folder: set_config(folder, rope_parameters={**YARN, "rope_type": "longrope"}), "'longrope'"),
    "quantised": (lambda folder: set_config(folder, quantization_config={"bits": 4}), "its weights are quantised"),
    "layers": (lambda folder: set_config(folder, num_hidden_layers=2), "no place for model.layers.2.*and 8 more"),
    "missing": (
        lambda folder: set_weights(folder, **{"model.norm.weight": None}),
        "expected model.norm.weight",
    ),
    "shape": (
        lambda folder: set_weights(folder, **{"lm_head.weight": torch.ones(64, 31)}),
        r"expected shape \[64, 32\] for lm_head.weight, got \[64, 31\]",
    ),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "holds no weights"),
    "no tensors": (lambda folder: (folder / "model.safetensors").write_text("weights"), "cannot be read as weights"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_bad_checkpoint_is_told_in_one_line(
    broken: str, llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, message = BROKEN[broken]
    change(llama)
    assert command(llama, tmp_path / "ours") == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(llama, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_bad_files_are_refused_by_name(tmp_path: Path) -> None:
    for name, content, message in (
        ("a.pth", b"not weights", "a.pth: cannot be read as weights"),
        ("a.gguf", b"", "a.gguf: expected a file that ends in .safetensors"),
        ("missing", None, "missing: there is no such file or folder"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            convert_checkpoint(tmp_path / name, tmp_path / "ours")
    torch.save([1], tmp_path / "b.pth")
    with pytest.raises(ValueError, match=r"b.pth: expected tensors by name"):
        convert_checkpoint(tmp_path / "b.pth", tmp_path / "ours")
    with pytest.raises(ValueError, match=r"holds a.pth and 1 more; name the file"):
        convert_checkpoint(tmp_path, tmp_path / "ours")


def test_the_wrong_type_or_place_is_refused(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="to: .*llama is transformers' and becomes transformer, not mamba"):
        convert_checkpoint(llama, tmp_path / "ours", "mamba")
    with pytest.raises(ValueError, match="to: expected one of transformer.*, got 'llama'"):
        convert_checkpoint(llama, tmp_path / "ours", "llama")
    with pytest.raises(ValueError, match="expected a new folder or an empty one"):
        convert_checkpoint(llama, llama)
    small = {"hidden_size": 32, "num_hidden_layers": 1, "vocab_size": 8}
    fla.models.MambaForCausalLM(fla.models.MambaConfig(**small)).save_pretrained(tmp_path / "mamba")
    with pytest.raises(ValueError, match="is our mamba; expected transformers or state-spaces, got None"):
        convert_checkpoint(tmp_path / "mamba", tmp_path / "back")
    fla.models.GLAForCausalLM(fla.models.GLAConfig(**small, num_heads=2)).save_pretrained(tmp_path / "gla")
    with pytest.raises(ValueError, match="no other program has our gla"):
        convert_checkpoint(tmp_path / "gla", tmp_path / "back")


def test_the_command_runs_as_a_module(tmp_path: Path) -> None:
    run = [sys.executable, "-m", "fla.models.convert", str(tmp_path / "nothing"), str(tmp_path / "ours")]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    expected = f"python -m fla.models.convert: error: {tmp_path / 'nothing'}: there is no such file or folder\n"
    assert done.stderr == expected
