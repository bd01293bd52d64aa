"""The things that users hold on to, as the code has them now, and the files that ``test_guard.py`` compares them with.

    python packages/fla/tests/guard/record.py names ops

writes those lists anew: ``names``, ``contents``, ``ops``, ``models``, ``commands``. Run it only where a change to them
is meant: what they name is in other people's programs and files. ``files`` writes what the code of a release writes,
and stays as it is until the next: later code has to read it.
"""

from __future__ import annotations

import inspect
import io
import json
import os
import pkgutil
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, PreTrainedConfig

import fla
import fla.models

HERE = Path(__file__).parent
FILES = HERE / "files"
PARTS = ("ops", "modules", "layers", "models", "utils")
COMMANDS = ("fla.utils", "fla.models.train", "fla.models.generate", "fla.models.convert")
_PUBLIC_UTILS = ("environment", "hardware", "numerics")
_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_heads": 2, "head_dim": 16, "vocab_size": 64}
_SMALL |= {"intermediate_size": 48, "num_slots": 12, "state_size": 8}
#: What follows from the other values in some models.
_FOLLOWS = {"Mamba": {"intermediate_size": None}, "Mamba2": {"num_heads": None}}
#: The config of the model that is trained, so small that its checkpoint is.
_TRAINED = ("hidden_size=8", "intermediate_size=16", "num_hidden_layers=1", "num_heads=1", "tie_word_embeddings=True")


def read(name: str) -> Any:
    """The record under a name."""
    return json.loads((HERE / f"{name}.json").read_text())


def write(name: str, content: Any) -> None:
    """Record something under a name."""
    (HERE / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


# Names and signatures


def modules() -> list[str]:
    """The modules that users import: packages, and the files at the top of each part."""
    found = ["fla", "fla.utils", *(f"fla.utils.{name}" for name in _PUBLIC_UTILS)]
    for part in PARTS[:-1]:
        package = import_module(f"fla.{part}")
        inner = pkgutil.walk_packages(package.__path__, f"fla.{part}.")
        found += [f"fla.{part}", *(m.name for m in inner if (m.ispkg or m.name.count(".") == 2) and "._" not in m.name)]
    return found


def names(path: str) -> list[str]:
    """The names that a module lists, or else the functions and classes that it defines."""
    module = import_module(path)
    defined = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == path]
    return sorted(name for name in getattr(module, "__all__", defined) if not name.startswith("_"))


def signatures(path: str, wanted: Iterable[str]) -> dict[str, Any]:
    """The signature of each of some names of a module; names that it lacks are left out."""
    module = import_module(path)
    return {name: _described(getattr(module, name)) for name in wanted if hasattr(module, name)}


def _described(value: Any) -> Any:
    if inspect.isclass(value):
        methods = {name: getattr(value, name, None) for name in ("__init__", "forward")}
        ours = {name: method for name, method in methods.items() if inspect.isfunction(method) and _is_ours(method)}
        fields = {"fields": list(value._fields)} if issubclass(value, tuple) else {}
        return {name: _signature(method, value) for name, method in ours.items()} | fields
    return _signature(value) if inspect.isfunction(value) else type(value).__name__


def _signature(function: Any, owner: type | None = None) -> str:
    """Names, kinds and defaults; of a dataclass only the fields that a class of ours declares."""
    parameters = list(inspect.signature(function).parameters.values())
    if owner is not None and function.__name__ == "__init__" and is_dataclass(owner):
        parameters = [p for p in parameters if p.name == "self" or p.name in _own_fields(owner)]
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in parameters]
    return re.sub(r"<(?:class|function) '?(?:\w+\.)*(\w+)'?(?: at \w+)?>", r"\1", str(inspect.Signature(bare)))


def _own_fields(owner: type) -> set[str]:
    return {name for base in owner.__mro__ if _is_ours(base) for name in vars(base).get("__annotations__", {})}


def _is_ours(value: Any) -> bool:
    return str(value.__module__).split(".")[0] == "fla"


def contents(part: str) -> list[str]:
    """The top of a part: modules by their names, whether files or folders, and the mark of typed ones."""
    paths = import_module(f"fla.{part}").__path__
    found = {module.name for module in pkgutil.iter_modules(paths) if not module.name.startswith("_")}
    return sorted(found | {"py.typed" for path in paths if Path(path, "py.typed").exists()})


# Ops, models, commands


def ops() -> dict[str, str]:
    """The schemas of ``torch.ops.fla`` once every module is loaded."""
    for module in pkgutil.walk_packages(fla.__path__, "fla."):
        if ".testing" not in module.name and not module.name.endswith("__main__"):
            try:
                import_module(module.name)
            except ModuleNotFoundError as error:
                if str(error.name).split(".")[0] == "fla":
                    raise
    found = {schema.name: str(schema) for schema in torch._C._jit_get_all_schemas() if schema.name.startswith("fla::")}
    return dict(sorted(found.items()))


def stems() -> list[str]:
    """The models, by what their classes' names begin with."""
    configs = [name.removesuffix("Config") for name in fla.models.__all__ if name.endswith("Config")]
    return [stem for stem in configs if f"{stem}ForCausalLM" in fla.models.__all__]


def model(stem: str) -> dict[str, Any]:
    """The keys of a model's config and weights, as its files have them."""
    config_class = getattr(fla.models, f"{stem}Config")
    values = {**_SMALL, **_FOLLOWS.get(stem, {})}
    config = config_class(**{key: value for key, value in values.items() if hasattr(config_class, key)})
    lm = AutoModelForCausalLM.from_config(config)
    weights = {name: f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)}" for name, x in lm.state_dict().items()}
    model_type = config.to_dict()["model_type"]
    return {"class": type(lm).__name__, "type": model_type, "config": sorted(own_keys(config)), "weights": weights}


def own_keys(config: PreTrainedConfig) -> dict[str, Any]:
    """A config as a file has it, without what every release of transformers adds."""
    own = _own_fields(type(config))
    return {key: value for key, value in config.to_dict().items() if key in own}


def options(command: str) -> list[str]:
    """The options that ``python -m command --help`` shows."""
    shown = io.StringIO()
    with mock.patch.object(sys, "argv", [command, "--help"]), redirect_stdout(shown), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*found in sys.modules", RuntimeWarning)
        try:
            runpy.run_module(command, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            if end.code:
                raise RuntimeError(f"{command} --help ends with {end.code}") from end
    return sorted(re.findall(r"^  (?:-\w, )?(--[a-z-]+)", shown.getvalue(), re.MULTILINE))


# Files


def train(folder: Path, stop: bool = False) -> tuple[int, str]:
    """Train on the text in a folder, on the CPU, or go on; the exit code and what was shown.

    With ``stop`` the run is interrupted when it has made a third of its steps.
    """
    line = [sys.executable, "-u", "-m", "fla.models.train", "--data", "text.txt", "--out", "run", "--steps", "30"]
    line += ["--batch", "2", "--length", "32", "--lr", "3e-2"]
    for pair in _TRAINED:
        line += ["--set", pair]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    shown = ""
    with subprocess.Popen(
        line, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for text in process.stdout:
            shown += text
            if stop and text.startswith("step 10/"):
                process.send_signal(signal.SIGINT)
    return process.returncode, shown


@torch.no_grad()
def final_loss(folder: Path) -> float:
    """The loss of the model that a run left behind, on the end of its text: releases of transformers log others."""
    lm = AutoModelForCausalLM.from_pretrained(folder / "run").eval()
    ids = torch.tensor([list((folder / "text.txt").read_bytes()[-256:])])
    return float(lm(ids, labels=ids).loss)


class _Program(torch.nn.Module):
    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, g: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        return fla.ops.chunk_gla(q, k, v, g, output_final_state=True)


def _write_training() -> None:
    folder = FILES / "training"
    folder.mkdir()
    lines = [f"In room {index} sat cat {index * 7}. It slept; and it dreamt.\n" for index in range(60)]
    (folder / "text.txt").write_text("".join(lines))
    code, shown = train(folder, stop=True)
    assert code == 130, shown
    *older, newest = sorted((folder / "run").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    for checkpoint in older:
        shutil.rmtree(checkpoint)
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        code, shown = train(Path(copy))
        assert code == 0, shown
        loss = final_loss(Path(copy))
    write("training", {"stopped_at": int(newest.name.split("-")[1]), "final_loss": round(loss, 4)})


def _write_program(expected: dict[str, torch.Tensor]) -> None:
    inputs = {name: torch.randn(1, 20, 2, 8) for name in "qkv"} | {"g": -torch.rand(1, 20, 2, 8)}
    program = torch.export.export(_Program(), tuple(inputs.values()))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # the paths of whoever wrote it
    torch.export.save(program, FILES / "program.pt2")
    o, final_state = program.module()(*inputs.values())
    expected.update(inputs, o=o, final_state=final_state)
    write("program", {"torch": torch.__version__.split("+")[0]})


def _write_model(expected: dict[str, torch.Tensor]) -> None:
    """A hybrid, and what it remembers of ten tokens."""
    attention = {"layers": [1], "num_heads": 2, "window_size": 6}
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_heads": 2, "vocab_size": 32, "intermediate_size": 24}
    config = fla.models.GLAConfig(**small, initializer_range=0.2, use_short_conv=True, attn=attention)
    lm = fla.models.GLAForCausalLM(config).eval()
    lm.save_pretrained(FILES / "model")
    torch.save(config, FILES / "config.pt")
    ids = torch.randint(3, 32, (1, 11))
    past = lm(ids[:, :10], use_cache=True)
    torch.save(past.past_key_values, FILES / "cache.pt")
    step = lm(ids[:, 10:], past_key_values=past.past_key_values).logits
    expected.update(ids=ids, logits=past.logits, step=step)


@torch.no_grad()
def write_files() -> None:
    """Write the files that later code has to read."""
    shutil.rmtree(FILES, ignore_errors=True)
    FILES.mkdir()
    torch.manual_seed(0)
    expected: dict[str, torch.Tensor] = {}
    _write_model(expected)
    _write_program(expected)
    save_file(expected, FILES / "expected.safetensors")
    _write_training()


def names_of_all() -> dict[str, Any]:
    """The names of every public module; those recorded at paths that have moved stay."""
    found, recorded = set(modules()), read("names")
    return {
        path: signatures(path, names(path) if path in found else recorded[path])
        for path in {**recorded, **dict.fromkeys(sorted(found))}
    }


LISTS: dict[str, Callable[[], Any]] = {
    "names": names_of_all,
    "contents": lambda: {part: contents(part) for part in PARTS},
    "ops": ops,
    "models": lambda: {stem: model(stem) for stem in stems()},
    "commands": lambda: {command: options(command) for command in COMMANDS},
}


def main(wanted: list[str]) -> None:
    """Write the lists that are named, or the files."""
    if not wanted or (unknown := set(wanted) - {*LISTS, "files"}):
        sys.exit(f"expected some of {', '.join([*LISTS, 'files'])}, got {' '.join(unknown) if wanted else 'nothing'}")
    for name in wanted:
        write_files() if name == "files" else write(name, LISTS[name]())


if __name__ == "__main__":
    main(sys.argv[1:])
