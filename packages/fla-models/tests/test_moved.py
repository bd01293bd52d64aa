"""Module paths of before a move: each stands for the module at its new path, and pickles that name it load."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

import fla.models
from fla.models.base.cache import Cache
from fla.models.base.configuration import FLAConfig

IN_BASE = ("backbone", "cache", "configuration", "hybrid", "losses", "lower_bounds", "modeling", "registration")
IN_WEIGHTS = ("checkpoints", "files", "mamba", "rwkv", "transformer")
MOVED = {
    **{f"fla.models.{name}": f"fla.models.base.{name}" for name in IN_BASE},
    "fla.models.conversion": "fla.models.convert",
    **{f"fla.models.conversion.{name}": f"fla.models.convert.weights.{name}" for name in IN_WEIGHTS},
}
#: In a process that has not imported us: what an old file names is found all the same.
LOAD = """
import sys
import torch

cache, config = torch.load(sys.argv[1], weights_only=False)
assert type(cache).__module__ == "fla.models.base.cache", type(cache)
assert type(config).__module__ == "fla.models.base.configuration", type(config)
print(cache.get_seq_length(), len(cache), config.hidden_size)
"""


@pytest.mark.parametrize("old", MOVED)
def test_the_old_path_is_the_same_module(old: str) -> None:
    assert import_module(old) is import_module(MOVED[old])


def test_old_paths_come_first() -> None:
    pairs = ", ".join(f"import_module({old!r}) is import_module({new!r})" for old, new in MOVED.items())
    line = f"from importlib import import_module; assert all([{pairs}])"
    subprocess.run([sys.executable, "-c", line], check=True)


@pytest.mark.parametrize("name", IN_BASE)
def test_the_old_path_is_an_attribute(name: str) -> None:
    assert getattr(fla.models, name) is import_module(f"fla.models.base.{name}")


def test_pickles_of_before_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = fla.models.GLAConfig(hidden_size=32, num_hidden_layers=2, num_heads=2, vocab_size=64)
    cache = fla.models.GLAModel(config).eval()(torch.arange(7)[None], use_cache=True).past_key_values
    monkeypatch.setattr(Cache, "__module__", "fla.models.cache")
    monkeypatch.setattr(FLAConfig, "__module__", "fla.models.configuration")
    torch.save((cache, FLAConfig(hidden_size=48)), tmp_path / "old.pt")
    line = [sys.executable, "-c", LOAD, str(tmp_path / "old.pt")]
    assert subprocess.run(line, check=True, capture_output=True, text=True).stdout == "7 2 48\n"
