"""Scaled rotary frequencies against those of transformers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, PreTrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

import fla.models
from fla.modules.rotary.scaling import RopeScaling

SCALINGS: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "llama3, of a short context": {
        "type": "llama3",
        "factor": 32,
        "low_freq_factor": 0.5,
        "high_freq_factor": 7,
        "original_max_position_embeddings": 100,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048},
    "yarn, of DeepSeek": {
        "type": "yarn",
        "factor": 40,
        "original_max_position_embeddings": 4096,
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": 0.7,
        "mscale_all_dim": 0.3,
    },
    "yarn, one mscale": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 4096,
        "mscale_all_dim": 1.0,
    },
    "yarn, not truncated": {
        "rope_type": "yarn",
        "factor": 32.0,
        "original_max_position_embeddings": 4096,
        "beta_fast": 24.0,
        "beta_slow": 2.0,
        "truncate": False,
    },
    "yarn, a factor of its own": {
        "rope_type": "yarn",
        "factor": 2.0,
        "original_max_position_embeddings": 64,
        "attention_factor": 1.25,
    },
    "yarn, no room between": {
        "rope_type": "yarn",
        "factor": 2.0,
        "original_max_position_embeddings": 10,
        "beta_fast": None,
    },
}


@pytest.mark.own_device
@pytest.mark.parametrize("name", SCALINGS)
@pytest.mark.parametrize(("dim", "base"), [(128, 5e5), (64, 1e4), (10, 1e6)])
def test_scaling_is_that_of_transformers(name: str, dim: int, base: float) -> None:
    scaling = SCALINGS[name]
    kind = scaling.get("rope_type", scaling.get("type"))
    config = LlamaConfig(hidden_size=2 * dim, num_attention_heads=2, max_position_embeddings=1 << 17)
    config.rope_parameters = {**scaling, "rope_type": kind, "rope_theta": base}
    expected, factor = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"))
    plain = 1 / base ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    ours = RopeScaling(scaling, base)
    torch.testing.assert_close(ours.scale(plain), expected, rtol=1e-6, atol=0)
    assert ours.factor == pytest.approx(factor, rel=1e-12)
    assert not torch.equal(expected, plain)


@pytest.mark.parametrize("stem", ["Transformer", "MLA"])
@pytest.mark.parametrize("given", ["rope_scaling", "rope_parameters"])
def test_a_config_reads_both_forms_and_writes_the_newer(given: str, stem: str, tmp_path: Path) -> None:
    config_class, model_class = (getattr(fla.models, f"{stem}{kind}") for kind in ("Config", "Model"))
    scaling = SCALINGS["yarn"]
    form = {"rope_scaling": scaling, "rope_theta": 5e4}
    if given == "rope_parameters":
        form = {"rope_parameters": {**scaling, "rope_theta": 5e4}}
    config = config_class(hidden_size=32, num_hidden_layers=1, num_heads=2, vocab_size=8, **form)
    config.save_pretrained(tmp_path)
    # As the Trainer reads it.
    assert PreTrainedConfig.from_json_file(tmp_path / "config.json").rope_parameters["rope_theta"] == 5e4
    for read in (config, config_class.from_pretrained(tmp_path), copy.deepcopy(config)):
        assert (read.rope_theta, read.rope_scaling) == (5e4, scaling)
        rotary = model_class(read).layers[0].attn.rotary
        assert (rotary.base, rotary.scaling.kind) == (5e4, "yarn")
