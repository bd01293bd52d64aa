"""What configs refuse, and what they forgive."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassFieldValidationError
from transformers import AutoConfig

from fla.models import (
    ABCConfig,
    BasedConfig,
    GLAConfig,
    GLAForCausalLM,
    GSAConfig,
    LinearAttentionConfig,
    LinearAttentionModel,
    Mamba2Config,
    Mamba2Model,
)
from fla.models.configuration import FLAConfig

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 64}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"hiden_size": 32}, TypeError, "GLAConfig: unknown key hiden_size"),
        ({"attnres_block_size": 4}, ValueError, "attnres_block_size.*got 4"),
        ({"use_gv": True}, ValueError, "use_gk, use_gv.*True and True"),
        ({"attn": 3}, StrictDataclassFieldValidationError, "attn"),
        ({"attn": [3]}, TypeError, "attn.*int"),
        ({"attn": {"layers": [1]}}, ValueError, "attn: expected num_heads, got layers only"),
        ({"attn": {"layers": [1], "num_heads": 2, "heads": 1}}, ValueError, "attn.*heads as well"),
        ({"attn": {"layers": [1], "mixer": "Mamba3"}}, ValueError, "attn: expected mixer.*fla.layers, got .Mamba3"),
        ({"attn": {"layers": [1], "mixer": "StateCache"}}, ValueError, "attn: expected mixer.*'StateCache'"),
        ({"attn": {"layers": [1], "mixer": "RWKV7FeedForward"}}, ValueError, "attn: expected mixer.*FeedForward'"),
        ({"attn": {"layers": [1], "mixer": "Mamba2", "layer_idx": 1}}, ValueError, "attn.*layer_idx as well"),
        ({"attn": {"num_heads": 2, "mixer": "Mamba2"}}, ValueError, "attn: expected layers, got num_heads, mixer only"),
        ({"attn": {"layers": [2], "num_heads": 2}}, ValueError, r"attn: expected layers from 0 to 1, got \[2\]"),
        (
            {"attn": [{"layers": [0, 1], "num_heads": 2}, {"layers": [1], "num_heads": 1}]},
            ValueError,
            r"attn.*layers \[1\] more than once",
        ),
    ],
)
def test_a_bad_config_is_refused_by_name(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        GLAConfig(**SMALL, **options)


def test_a_clamp_that_gated_slot_attention_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="clamp_min, clamp_max.*got -1 and None"):
        GSAConfig(**SMALL, clamp_min=-1)


def test_a_value_of_the_wrong_type_is_refused_by_name() -> None:
    with pytest.raises(StrictDataclassFieldValidationError, match="'num_heads'.*\n.*expected int, got str"):
        GLAConfig(num_heads="4")


def test_sizes_that_heads_do_not_divide_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="num_heads=3"):
        GLAForCausalLM(GLAConfig(**SMALL, num_heads=3))


@pytest.mark.parametrize("config_class", [ABCConfig, GSAConfig])
@pytest.mark.parametrize(("misspelt", "key"), [("exapnd_k", "expand_k"), ("exapnd_v", "expand_v")])
def test_a_misspelt_key_is_understood_and_written_correctly(
    config_class: type[FLAConfig],
    misspelt: str,
    key: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = config_class(**SMALL, **{misspelt: 0.25})
    assert getattr(config, key) == getattr(config, misspelt) == 0.25
    config.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    written = json.loads(path.read_text())
    assert written.pop(key) == 0.25
    assert misspelt not in written
    path.write_text(json.dumps({**written, misspelt: 0.75}))
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    assert getattr(config_class.from_pretrained(tmp_path), key) == 0.75
    assert not caplog.text
    with pytest.raises(StrictDataclassFieldValidationError, match=f"'{key}'.*\n.*got str"):
        config_class(**SMALL, **{misspelt: "0.25"})
    with pytest.raises(TypeError, match=f"unknown key {misspelt}"):
        GLAConfig(**SMALL, **{misspelt: 0.25})


def test_unknown_keys_of_a_file_are_dropped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    GLAConfig(**SMALL).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "share_conv_kernel": True}))
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    config = AutoConfig.from_pretrained(tmp_path)
    assert "share_conv_kernel" in caplog.text
    assert not hasattr(config, "share_conv_kernel")


def test_based_mixes_three_kinds_of_layers() -> None:
    mixed = BasedConfig(num_hidden_layers=6, num_heads=4)
    assert (mixed.conv_layers, mixed.attn["layers"], mixed.attn["window_size"]) == ([0, 2, 4, 5], [3], 64)
    bare = BasedConfig(num_hidden_layers=6, conv_layers=[])
    assert (bare.conv_layers, bare.attn) == ([], None)
    windows = BasedConfig(num_hidden_layers=6, attn={"layers": [0], "num_heads": 4})
    assert (windows.conv_layers, windows.attn["layers"]) == ([], [0])
    with pytest.raises(ValueError, match=r"conv_layers: expected layers from 0 to 1.*got \[0, 2\]"):
        BasedConfig(**SMALL, conv_layers=[0, 1, 2], attn={"layers": [0], "num_heads": 2})


def test_a_hedgehog_map_starts_as_the_identity_in_a_model_too() -> None:
    model = LinearAttentionModel(LinearAttentionConfig(**SMALL, feature_map="hedgehog"))
    for block in model.layers:
        for feature_map in (block.attn.feature_map_q, block.attn.feature_map_k):
            assert torch.equal(feature_map.layer.weight, torch.eye(8))
            assert not feature_map.layer.bias.any()


def test_projections_of_mamba2_start_smaller_in_deeper_models() -> None:
    small = {**SMALL, "head_dim": 16, "state_size": 4, "initializer_range": 0.5}
    for rescaled, bound in ((True, 64**-0.5 / 3), (False, 1.0)):
        config = Mamba2Config(**{**small, "num_hidden_layers": 9}, rescale_prenorm_residual=rescaled)
        largest = max(block.mixer.out_proj.weight.abs().max().item() for block in Mamba2Model(config).layers)
        assert (0.95 * bound < largest <= bound) if rescaled else largest > bound
