"""The things that users hold on to are as ``guard/record.py`` found it: names, ops, weights, files and commands.

Code may move; what stands in other people's programs and files may not. A test that fails here asks whether that is
meant. Where it is, ``python packages/fla/tests/guard/record.py`` with the names of the records writes them anew.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import fla.models
from fla.utils.numerics import agreement, assert_close
from guard import record

# What is recorded was computed on the CPU.
pytestmark = pytest.mark.own_device
NAMES, CONTENTS, OPS, MODELS, COMMANDS, TRAINING = map(
    record.read, ("names", "contents", "ops", "models", "commands", "training")
)
EXPECTED = load_file(record.FILES / "expected.safetensors")
CLOSE = agreement(torch.float32, 4096)
MEANT = "exported programs depend on them; if the change is meant, guard/record.py ops writes it anew"

#: ``fla.ops`` alone registers nothing, as families are loaded when they are asked for; the family does.
LOAD_PROGRAM = """
import sys
import torch
import fla.ops.gla
from safetensors.torch import load_file, save_file

program, inputs, outputs = sys.argv[1:]
given = load_file(inputs)
o, final_state = torch.export.load(program).module()(*(given[name] for name in "qkvg"))
save_file({"o": o, "final_state": final_state}, outputs)
"""


def assert_as_recorded(name: str, result: torch.Tensor) -> None:
    assert_close(name, EXPECTED[name], result, CLOSE, 0.0)


@pytest.mark.parametrize("path", NAMES)
def test_a_public_module_keeps_its_names_and_their_signatures(path: str) -> None:
    assert record.signatures(path, NAMES[path]) == NAMES[path]


@pytest.mark.parametrize("part", CONTENTS)
def test_a_part_keeps_what_lies_at_its_top(part: str) -> None:
    gone = set(CONTENTS[part]) - set(record.contents(part))
    # What has moved may still be imported by its old path.
    assert all(find_spec(f"fla.{part}.{name}") for name in gone), gone


def test_public_packages_register_every_op() -> None:
    # A program that was exported on a GPU is loaded after importing what it was written with.
    program = """
from importlib import import_module
from pkgutil import iter_modules
import torch, fla.ops, fla.modules
for part in (fla.ops, fla.modules):
    for module in iter_modules(part.__path__, part.__name__ + "."):
        if "._" not in module.name:
            import_module(module.name)
names = {str(schema).partition("(")[0] for schema in torch._C._jit_get_all_schemas()}
print(*sorted(name for name in names if name.startswith("fla::")))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == sorted(OPS)


def test_ops_keep_their_names_and_schemas() -> None:
    assert record.ops() == OPS, MEANT


@pytest.mark.parametrize("stem", MODELS)
def test_a_model_keeps_the_keys_of_its_config_and_its_weights(stem: str) -> None:
    assert record.model(stem) == MODELS[stem]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_keeps_its_options(command: str) -> None:
    assert set(record.options(command)) >= set(COMMANDS[command])


@torch.no_grad()
def test_a_saved_model_computes_what_it_did() -> None:
    lm = AutoModelForCausalLM.from_pretrained(record.FILES / "model").eval()
    assert type(lm) is fla.models.GLAForCausalLM
    assert_as_recorded("logits", lm(EXPECTED["ids"][:, :10]).logits)


@torch.no_grad()
def test_a_pickled_cache_goes_on() -> None:
    lm = AutoModelForCausalLM.from_pretrained(record.FILES / "model").eval()
    cache = torch.load(record.FILES / "cache.pt", weights_only=False)
    assert type(cache) is fla.models.Cache
    assert cache.get_seq_length() == 10
    assert_as_recorded("step", lm(EXPECTED["ids"][:, 10:], past_key_values=cache).logits)


def test_a_pickled_config_is_that_of_the_saved_model() -> None:
    config = torch.load(record.FILES / "config.pt", weights_only=False)
    assert type(config) is fla.models.GLAConfig
    saved = fla.models.GLAConfig.from_pretrained(record.FILES / "model")
    assert record.own_keys(config) == record.own_keys(saved)


def test_an_exported_program_computes_what_it_did_in_a_fresh_process(tmp_path: Path) -> None:
    writer = record.read("program")["torch"]
    if torch.__version__ < writer:
        pytest.skip(f"PyTorch {torch.__version__} need not read what PyTorch {writer} exported")
    files = (record.FILES / "program.pt2", record.FILES / "expected.safetensors", tmp_path / "outputs.safetensors")
    subprocess.run([sys.executable, "-c", LOAD_PROGRAM, *map(str, files)], check=True)
    for name, result in load_file(files[-1]).items():
        assert_as_recorded(name, result)


def test_a_training_run_that_was_stopped_goes_on_to_its_end(tmp_path: Path) -> None:
    for package in ("accelerate", "matplotlib"):
        pytest.importorskip(package, reason=f"training needs {package}, of the extra `train`")
    shutil.copytree(record.FILES / "training", tmp_path, dirs_exist_ok=True)
    code, shown = record.train(tmp_path)
    assert code == 0, shown
    assert f"goes on from step {TRAINING['stopped_at']}: 30 steps" in shown
    assert record.final_loss(tmp_path) == pytest.approx(TRAINING["final_loss"], abs=0.01)
