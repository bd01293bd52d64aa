"""What configs refuse, and what they forgive."""

from __future__ import annotations

import json
import logging
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassFieldValidationError
from transformers import AutoConfig, PreTrainedConfig

import fla.models
from fla.models import (
    ABCConfig,
    BasedConfig,
    BasedModel,
    GLAConfig,
    GLAForCausalLM,
    GSAConfig,
    LinearAttentionConfig,
    LinearAttentionModel,
    Mamba2Config,
    Mamba2Model,
    MLAConfig,
    RWKV7Config,
    RWKV7Model,
    SambaConfig,
    TransformerConfig,
)
from fla.models.base.configuration import FLAConfig

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 64}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"hiden_size": 32}, TypeError, "GLAConfig: unknown key hiden_size"),
        ({"attnres_block_size": 4}, ValueError, "attnres_block_size.*got 4"),
        ({"use_gv": True}, ValueError, "use_gv: only False is supported, got True"),
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
    with pytest.raises(ValueError, match="clamp_min: only None is supported, got -1"):
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


CONFIGS = [getattr(fla.models, name) for name in fla.models.__all__ if name.endswith("Config")]
every_config = pytest.mark.parametrize("config_class", CONFIGS, ids=lambda config_class: config_class.__name__)
#: Any number is one of these, or they are other programs' to check.
ANY_NUMBER = {"bos_token_id", "eos_token_id", "pad_token_id", "correction_factor", "lower_bound"}
#: Zero adds nothing, and bounds nothing.
MAY_BE_ZERO = {"initializer_range", "conv_init", "dt_scale", "time_step_scale", "dt_init_floor", "time_step_floor"}


def numeric_keys(config_class: type[FLAConfig]) -> list[str]:
    kinds = {field.name: str(field.type) for field in fields(config_class)}
    own = [key for key in kinds if key not in PreTrainedConfig.__dataclass_fields__]
    numbers = [key for key in own if "int" in kinds[key] or "float" in kinds[key]]
    left_out = ANY_NUMBER | config_class.only.keys() | {"clamp_min", "clamp_max", "conv_layers"}
    return [key for key in numbers if key not in left_out]


@every_config
def test_a_number_that_a_key_cannot_have_is_refused_wherever_it_is_given(config_class: type[FLAConfig]) -> None:
    for key in numeric_keys(config_class):
        may_be_zero = key in MAY_BE_ZERO or key.endswith("eps")
        for value in [-1] if may_be_zero else [-1, 0]:
            with pytest.raises(ValueError, match=f"^{key}: expected.*, got {value}"):
                config_class(**{key: value})
            with pytest.raises(ValueError, match=f"^{key}: expected.*, got {value}"):
                config_class.from_dict({key: value})
            with pytest.raises(ValueError, match=f"^{key}: expected.*, got {value}"):
                config_class.from_dict({}, **{key: value})
            config = config_class()
            with pytest.raises(ValueError, match=f"^{key}: expected.*, got {value}"):
                setattr(config, key, value)
            assert getattr(config, key) == getattr(config_class(), key)
        if may_be_zero:
            assert getattr(config_class(**{key: 0}), key) == 0


@every_config
def test_a_value_that_is_not_supported_is_refused_in_an_assignment_too(config_class: type[FLAConfig]) -> None:
    for key, only in config_class.only.items():
        with pytest.raises(ValueError, match=f"^{key}: only {only} is supported, got"):
            setattr(config_class(), key, (not only) if isinstance(only, bool) else 4)


@every_config
def test_a_hybrid_plan_is_completed_and_checked_wherever_it_is_given(
    config_class: type[FLAConfig], tmp_path: Path
) -> None:
    plan = {"layers": [1], "num_heads": 2}
    whole = {**plan, "num_kv_heads": 2, "qkv_bias": False, "window_size": None, "rope_theta": 10000.0}
    given = config_class(num_hidden_layers=3, attn=plan)
    assert given.attn == whole
    assert config_class.from_dict({"num_hidden_layers": 3}, attn=plan).attn == whole
    none = config_class(num_hidden_layers=3)
    none.save_pretrained(tmp_path)
    if not hasattr(none, "conv_layers"):
        assert config_class.from_pretrained(tmp_path, attn=plan).attn == whole
        assert AutoConfig.from_pretrained(tmp_path, attn=plan).attn == whole
        # The keywords are checked together, whatever the order.
        more = config_class.from_pretrained(tmp_path, attn={**plan, "layers": [7]}, num_hidden_layers=8)
        assert (more.attn["layers"], more.num_hidden_layers) == ([7], 8)
    given.attn = {**plan, "layers": [2]}
    assert given.attn == {**whole, "layers": [2]}
    wrong = {**plan, "layers": [3]}
    with pytest.raises(ValueError, match=r"attn: expected layers from 0 to 2, got \[3\]"):
        given.attn = wrong
    with pytest.raises(ValueError, match=r"attn: expected layers from 0 to 2, got \[3\]"):
        config_class.from_dict({"num_hidden_layers": 3}, attn=wrong)
    with pytest.raises(ValueError, match=r"attn: expected layers from 0 to 1, got \[2\]"):
        given.num_hidden_layers = 2
    assert (given.attn["layers"], given.num_hidden_layers) == ([2], 3)
    with pytest.raises(ValueError, match="attn: expected num_heads"):
        given.attn = {"layers": [0]}


def test_what_no_assignment_has_shown_is_seen_when_a_model_is_made() -> None:
    config = GLAConfig(**SMALL, attn={"layers": [1], "num_heads": 2})
    config.attn["layers"].append(2)
    with pytest.raises(ValueError, match=r"attn: expected layers from 0 to 1, got \[2\]"):
        GLAForCausalLM(config)
    based = BasedConfig(**SMALL, num_heads=2, conv_layers=[0])
    based.conv_layers = [2]
    with pytest.raises(ValueError, match=r"conv_layers: expected layers from 0 to 1.*got \[2\]"):
        BasedModel(based)
    rwkv = RWKV7Config(**SMALL, head_dim=16, value_dim=[32, 32])
    rwkv.num_hidden_layers = 3
    with pytest.raises(ValueError, match="value_dim: expected one width 3 times"):
        RWKV7Model(rwkv)


def test_samba_without_attention_is_not_samba_as_in_the_paper(tmp_path: Path) -> None:
    sizes = {"hidden_size": 256, "num_hidden_layers": 4, "vocab_size": 64}
    for config in (SambaConfig(**sizes), SambaConfig(**sizes, attn="paper"), SambaConfig.from_dict(dict(sizes))):
        assert (config.attn["layers"], config.attn["num_heads"], config.attn["window_size"]) == ([1, 3], 2, 2048)
    # The defaults of flash-linear-attention.
    assert SambaConfig().attn == {
        "layers": [1, 3, 5, 7, 9, 11, 13, 15, 17],
        "num_heads": 18,
        "num_kv_heads": 18,
        "qkv_bias": False,
        "window_size": 2048,
        "rope_theta": 10000.0,
    }
    bare = SambaConfig(**sizes, attn=None)
    assert bare.attn is None
    bare.save_pretrained(tmp_path)
    assert SambaConfig.from_pretrained(tmp_path).attn is None
    assert AutoConfig.from_pretrained(tmp_path, attn="paper").attn["layers"] == [1, 3]


@pytest.mark.parametrize("config_class", [TransformerConfig, MLAConfig])
def test_keywords_of_rotary_positions_go_before_those_of_a_file(config_class: type[FLAConfig], tmp_path: Path) -> None:
    linear = {"rope_type": "linear", "factor": 2.0}
    config_class(rope_scaling=linear, rope_theta=500.0).save_pretrained(tmp_path)
    as_written = config_class.from_pretrained(tmp_path)
    assert (as_written.rope_scaling, as_written.rope_theta) == (linear, 500.0)
    other = config_class.from_pretrained(tmp_path, rope_scaling={**linear, "factor": 4.0}, rope_theta=700.0)
    assert (other.rope_scaling, other.rope_theta) == ({**linear, "factor": 4.0}, 700.0)
    assert AutoConfig.from_pretrained(tmp_path, rope_scaling=None).rope_scaling is None
