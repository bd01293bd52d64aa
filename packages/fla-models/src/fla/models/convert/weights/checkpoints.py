"""Whole checkpoints from one folder to another."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING

from fla.models.base.modeling import FLAForCausalLM
from fla.models.base.registration import causal_lm_of, is_ours, own_type
from fla.models.convert.weights.files import Checkpoint
from fla.models.convert.weights.filled import Converted, Weights, around
from fla.models.convert.weights.mamba import (
    mamba2_to_state_spaces,
    mamba2_to_transformers,
    mamba_to_state_spaces,
    mamba_to_transformers,
    read_mamba2_of_state_spaces,
    read_mamba2_of_transformers,
    read_mamba_of_state_spaces,
    read_mamba_of_transformers,
)
from fla.models.convert.weights.rwkv import read_rwkv6, read_rwkv7, rwkv6_to_release, rwkv7_to_release
from fla.models.convert.weights.transformer import TRANSFORMER_TYPES, read_transformer, transformer_to_transformers
from fla.models.mamba import MambaForCausalLM
from fla.models.mamba2 import Mamba2ForCausalLM
from fla.models.rwkv6 import RWKV6ForCausalLM
from fla.models.rwkv7 import RWKV7ForCausalLM
from fla.models.transformer import TransformerForCausalLM

#: Files that go with any weights: the tokenizer's, and how texts are generated.
_COPIED = (
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.tiktoken"),
    *("chat_template*", "sentencepiece*", "spiece.model", "generation_config.json"),
)


class _Source(NamedTuple):
    """A kind of checkpoint that we read."""

    whose: str
    model: type[FLAForCausalLM]
    read: Callable[[Any, Weights], Converted[Any]]
    """Config and weights as ours."""


#: Sources by transformers' ``model_type``.
_TRANSFORMERS = {
    **{
        model_type: _Source("transformers'", TransformerForCausalLM, read_transformer)
        for model_type in TRANSFORMER_TYPES
    },
    "mamba": _Source("transformers'", MambaForCausalLM, read_mamba_of_transformers),
    "mamba2": _Source("transformers'", Mamba2ForCausalLM, read_mamba2_of_transformers),
}
#: Sources by the ``layer`` of state-spaces.
_STATE_SPACES = {
    "Mamba1": _Source("state-spaces'", MambaForCausalLM, read_mamba_of_state_spaces),
    "Mamba2": _Source("state-spaces'", Mamba2ForCausalLM, read_mamba2_of_state_spaces),
}
#: Sources by a weight that no other has.
_RWKV = {
    "blocks.0.att.time_maa_w1": _Source("RWKV's", RWKV6ForCausalLM, lambda config, weights: read_rwkv6(weights)),
    "blocks.0.att.r_k": _Source("RWKV's", RWKV7ForCausalLM, lambda config, weights: read_rwkv7(weights)),
}


def _save_transformers(convert: Callable[[Any], Any]) -> Callable[[Any, Path], None]:
    return lambda model, folder: convert(model).save_pretrained(folder)


def _save_state_spaces(convert: Callable[[Any], tuple[dict[str, Any], Weights]]) -> Callable[[Any, Path], None]:
    def save(model: Any, folder: Path) -> None:
        config, weights = convert(model)
        torch.save(weights, folder / "pytorch_model.bin")
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    return save


def _save_release(convert: Callable[[Any], Weights]) -> Callable[[Any, Path], None]:
    return lambda model, folder: torch.save(convert(model), folder / f"{model.config.model_type}.pth")


#: Ways to write our models for other programs, by our type and the wanted one.
_BACK: dict[str, dict[str, Callable[[Any, Path], None]]] = {
    "transformer": {"transformers": _save_transformers(transformer_to_transformers)},
    "mamba": {
        "transformers": _save_transformers(mamba_to_transformers),
        "state-spaces": _save_state_spaces(mamba_to_state_spaces),
    },
    "mamba2": {
        "transformers": _save_transformers(mamba2_to_transformers),
        "state-spaces": _save_state_spaces(mamba2_to_state_spaces),
    },
    "rwkv6": {"rwkv": _save_release(rwkv6_to_release)},
    "rwkv7": {"rwkv": _save_release(rwkv7_to_release)},
}
#: Our model types that other checkpoints become, and the forms that ours become.
TYPES = (*_BACK, "transformers", "state-spaces", "rwkv")


def convert_checkpoint(source: str | Path, destination: str | Path, to: str | None = None) -> str:
    """Make a checkpoint of another program one of ours, or one of ours another program's.

    Weights keep their values and their dtype. They are not held in memory all at once, where the format of the files
    allows it.

    Args:
        source: a folder with ``config.json`` and weights in safetensors or ``.bin`` files, whole or in shards:
            transformers' Llama, Mistral, Qwen2, Qwen3, Mamba, Mamba2; state-spaces' Mamba, Mamba-2; one of ours. Or a
            file: a release of RWKV-6 or RWKV-7, ``.pth`` or ``.safetensors``.
        destination: a folder to write, which must be new or empty. The tokenizer's files are copied along.
        to: the type it is to become, one of :data:`TYPES`: of another program's checkpoint our model type, which
            follows from the source, so that it is a check only; of ours ``"transformers"``, ``"state-spaces"`` or
            ``"rwkv"``, which may be left out where there is one only.

    Returns:
        A line that says what became what.

    Raises:
        ValueError: a source that cannot be read, or that holds what the other side does not have; a destination that
            holds files; another type than the source can become.
    """
    source, destination = Path(source), Path(destination)
    if to is not None and to not in TYPES:
        raise ValueError(f"to: expected one of {', '.join(TYPES)}, got {to!r}")
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise ValueError(f"{destination}: expected a new folder or an empty one")
    try:
        with Checkpoint(source) as checkpoint:
            if checkpoint.config is not None and is_ours(checkpoint.config):
                said = _convert_back(checkpoint.config, source, destination, to)
            else:
                said = _convert(checkpoint, source, destination, to)
    except KeyError as error:
        raise ValueError(f"{source}: there is no {error.args[0]}") from error
    except (StrictDataclassError, TypeError) as error:
        raise ValueError(f"{source}: {error}") from error
    if source.is_dir():
        for pattern in _COPIED:
            for file in source.glob(pattern):
                shutil.copy(file, destination)
    return said


def _convert(checkpoint: Checkpoint, source: Path, destination: Path, to: str | None) -> str:
    """Convert another program's checkpoint to ours."""
    kind, config = _kind_of(checkpoint, source)
    converted = kind.read(config, checkpoint)
    ours = converted.config.model_type
    if to not in (None, ours):
        raise ValueError(f"to: {source} is {kind.whose} and becomes {ours}, not {to}")
    model = around(kind.model, converted)
    destination.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(destination)
    return f"{kind.whose} {source} -> {ours} {destination}"


def _convert_back(config: dict[str, Any], source: Path, destination: Path, to: str | None) -> str:
    """Convert a checkpoint of ours to another program's."""
    model_type = own_type(config)
    forms = _BACK.get(model_type)
    if forms is None:
        raise ValueError(f"{source}: no other program has our {model_type}")
    if to is None and len(forms) == 1:
        (to,) = forms
    if to not in forms:
        raise ValueError(f"to: {source} is our {model_type}; expected {' or '.join(forms)}, got {to}")
    model = causal_lm_of(config).from_pretrained(source, dtype="auto")
    destination.mkdir(parents=True, exist_ok=True)
    forms[to](model, destination)
    return f"our {model_type} {source} -> {to} {destination}"


def _kind_of(checkpoint: Checkpoint, source: Path) -> tuple[_Source, Any]:
    """The kind of a checkpoint, and its config as the reader of that kind takes it."""
    config = checkpoint.config
    if config is None:
        for name, kind in _RWKV.items():
            if name in checkpoint:
                return kind, None
        raise ValueError(f"{source}: there is no config.json, and the weights are none of RWKV-6 or RWKV-7")
    if "ssm_cfg" in config:
        layer = config["ssm_cfg"].get("layer", "Mamba1")
        if layer not in _STATE_SPACES:
            raise ValueError(f"{source}: expected a layer of {', '.join(_STATE_SPACES)}, got {layer}")
        return _STATE_SPACES[layer], config
    model_type = config.get("model_type")
    if model_type not in _TRANSFORMERS:
        raise ValueError(f"{source}: expected a model_type of {', '.join(_TRANSFORMERS)}, got {model_type!r}")
    if "quantization_config" in config:
        raise ValueError(f"{source}: its weights are quantised; expected those in full")
    return _TRANSFORMERS[model_type], CONFIG_MAPPING[model_type].from_pretrained(source)
