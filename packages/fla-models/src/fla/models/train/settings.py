"""Settings of training: sizes and defaults by device, and the config of a model type from them and from ``--set``."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoModelForCausalLM,
    PreTrainedConfig,
    set_seed,
)
from transformers.modeling_utils import PreTrainedModel

from fla.models.base.registration import config_of_shared_type, own_types
from fla.models.commands.command_line import UserError, one_line, suggest
from fla.models.train.tokenizer import END_OF_TEXT, VOCABULARY

#: Errors that configs and models raise over values that do not fit together.
_BAD_VALUE = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    ImportError,
    RuntimeError,
    ArithmeticError,
    StrictDataclassError,
)


@dataclass(frozen=True)
class Size:
    """The shape of a model and a learning rate that suits it."""

    hidden_size: int
    layers: int
    heads: int
    lr: float


SIZES = {
    "tiny": Size(128, 2, 4, 4e-3),
    "small": Size(512, 8, 4, 1e-3),
    "base": Size(768, 12, 6, 6e-4),
    "large": Size(1024, 24, 8, 3e-4),
}


@dataclass(frozen=True)
class Defaults:
    """Defaults of a kind of device: as much as it has time for in a couple of minutes."""

    size: str
    batch: int
    length: int
    steps: int


CPU = Defaults("tiny", 8, 256, 800)
GPU = Defaults("small", 16, 1024, 1000)


def parse_override(text: str) -> tuple[str, Any]:
    """``key=value`` as a pair; the value is read as Python, or as a string where it is none.

    Raises:
        UserError: there is no key or no ``=``.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise UserError(f"--set: expected KEY=VALUE, got {text!r}")
    words = {"true": True, "false": False, "null": None, "none": None}
    if value.lower() in words:
        return key, words[value.lower()]
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


def make_config(model_type: str, size: Size, length: int, overrides: Mapping[str, Any]) -> PreTrainedConfig:
    """The config of a byte-level model.

    Args:
        model_type: any that ``AutoModelForCausalLM`` knows; ours where both we and transformers have it.
        size: its shape.
        length: length of the sequences it is trained on.
        overrides: keys of the config that are wanted otherwise.

    Raises:
        UserError: an unknown model type or key, or values that do not fit.
    """
    if model_type not in CONFIG_MAPPING or CONFIG_MAPPING[model_type] not in MODEL_FOR_CAUSAL_LM_MAPPING:
        there_are = suggest(model_type, causal_lm_types()) or f"; of fla there are {', '.join(own_types())}"
        raise UserError(f"--model: no language model is called {model_type!r}{there_are}")
    config_class = config_of_shared_type(model_type) or CONFIG_MAPPING[model_type]
    try:
        defaults = config_class().to_dict()
        aliases = config_class.attribute_map
        known = {**defaults, **{name: defaults.get(to) for name, to in aliases.items()}}
        if unknown := [key for key in overrides if key not in known]:
            raise UserError(
                f"--set: {config_class.__name__} has no key {unknown[0]!r}{suggest(unknown[0], sorted(known))}"
            )
        return config_class(**{**_shape(size, length, known), **overrides})
    except _BAD_VALUE as error:
        raise UserError(f"--model {model_type}: {one_line(error)}") from error


def make_model(config: PreTrainedConfig, seed: int) -> PreTrainedModel:
    """A new model in float32; the seed decides its weights.

    Raises:
        UserError: the config's values do not fit together.
    """
    set_seed(seed)
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
        return model
    except _BAD_VALUE as error:
        raise UserError(f"--model {config.model_type}: {one_line(error)}") from error


def causal_lm_types() -> Sequence[str]:
    """The model types that can be trained here."""
    return sorted({config_class.model_type for config_class in MODEL_FOR_CAUSAL_LM_MAPPING})


def _shape(size: Size, length: int, known: Mapping[str, Any]) -> dict[str, Any]:
    """The shape under the names that a config has for it."""
    wanted = {
        "vocab_size": VOCABULARY,
        "hidden_size": size.hidden_size,
        "num_hidden_layers": size.layers,
        "max_position_embeddings": max(length, 2048),
        "bos_token_id": END_OF_TEXT,
        "eos_token_id": END_OF_TEXT,
        "pad_token_id": END_OF_TEXT,
        "is_decoder": True,
        # Neighbouring bytes belong together: a convolution is worth more here than anything else of its cost.
        "use_short_conv": True,
    }
    # The config works these out where they are None.
    if_set = {
        "num_heads": size.heads,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.heads,
        "head_dim": size.hidden_size // size.heads,
        "intermediate_size": 4 * size.hidden_size,
    }
    shape = {key: value for key, value in wanted.items() if key in known}
    return shape | {key: value for key, value in if_set.items() if known.get(key) is not None}
