"""Transformers' Llama, Mistral, Qwen2 and Qwen3 as our Transformer, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import transformers

from fla.layers import Attention
from fla.models.convert.weights.filled import Converted, Weights, filled, hollow
from fla.models.transformer import TransformerConfig, TransformerForCausalLM

#: Keys that both have, under one name.
_SAME = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "max_position_embeddings"),
    *("initializer_range", "use_cache", "pad_token_id", "bos_token_id", "eos_token_id", "tie_word_embeddings"),
)
#: Parts of names, ours -> theirs.
_PARTS = {
    "model.embeddings.": "model.embed_tokens.",
    ".attn.": ".self_attn.",
    ".attn_norm.": ".input_layernorm.",
    ".mlp_norm.": ".post_attention_layernorm.",
}
#: A table of frequencies that old files hold and nobody reads.
_IGNORED = ".rotary_emb.inv_freq"
_FULL, _SLIDING = "full_attention", "sliding_attention"


class _Kind(NamedTuple):
    """One of transformers' model types, and the options of its attention."""

    stem: str
    biases: Callable[[Any], tuple[bool, bool]]
    """Biases of queries, keys and values, and of the output, by the config."""
    windows: Callable[[Any], Iterable[int | None]] = lambda config: [None] * config.num_hidden_layers
    """Window of each layer, by the config."""
    qk_norm: bool = False


def _windows_by_type(config: Any) -> list[int | None]:
    if unknown := set(config.layer_types) - {_FULL, _SLIDING}:
        raise ValueError(f"layer_types: expected {_FULL} and {_SLIDING} only, got {', '.join(sorted(unknown))}")
    return [config.sliding_window if kind == _SLIDING else None for kind in config.layer_types]


def _attention_bias(config: Any) -> tuple[bool, bool]:
    return config.attention_bias, config.attention_bias


_KINDS = {
    "llama": _Kind("Llama", _attention_bias),
    "mistral": _Kind(
        "Mistral", lambda config: (False, False), lambda config: [config.sliding_window] * config.num_hidden_layers
    ),
    "qwen2": _Kind("Qwen2", lambda config: (True, False), _windows_by_type),
    "qwen3": _Kind("Qwen3", _attention_bias, _windows_by_type, qk_norm=True),
}
#: The model types of transformers that our Transformer can be.
TRANSFORMER_TYPES = tuple(_KINDS)


def transformer_from_transformers(model: transformers.PreTrainedModel) -> TransformerForCausalLM:
    """A Llama, Mistral, Qwen2 or Qwen3 of transformers as our Transformer.

    Example::

        theirs = transformers.AutoModelForCausalLM.from_pretrained("Qwen/Qwen3-0.6B")
        transformer_from_transformers(theirs).save_pretrained("ours")

    Args:
        model: transformers' language model.

    Returns:
        Our model with the same weights, in the dtype and on the device of the other. Layers with a window, where
        others have none, become entries of ``config.attn``.

    Raises:
        ValueError: another model type, or an option that ours does not have.
    """
    return filled(TransformerForCausalLM, read_transformer(model.config, model.state_dict()))


def transformer_to_transformers(model: TransformerForCausalLM) -> transformers.PreTrainedModel:
    """Our Transformer as transformers' own: the way back of :func:`transformer_from_transformers`.

    Args:
        model: our model.

    Returns:
        Transformers' Qwen3 if queries and keys have norms, else Qwen2 if only they and the values have biases, else
        Mistral if there is a window, else Llama; in the dtype and on the device of ours.

    Raises:
        ValueError: an option that theirs does not have.
    """
    kind, options = _options_of_theirs(model)
    config = getattr(transformers, f"{kind.stem}Config")(**options)
    _check_way_back(model, config, kind)
    weights = {_renamed(name, _PARTS): tensor for name, tensor in model.state_dict().items()}
    made: transformers.PreTrainedModel = filled(
        getattr(transformers, f"{kind.stem}ForCausalLM"), Converted(config, weights)
    )
    return made


def read_transformer(config: transformers.PreTrainedConfig, weights: Weights) -> Converted[TransformerConfig]:
    """Transformers' config and weights as ours."""
    names = {theirs: ours for ours, theirs in _PARTS.items()}
    ours = {_renamed(name, names): weights[name] for name in weights if not name.endswith(_IGNORED)}
    if config.tie_word_embeddings:
        ours.setdefault("lm_head.weight", ours["model.embeddings.weight"])
    return Converted(_config_of_ours(config), ours)


def _config_of_ours(config: Any) -> TransformerConfig:
    if config.model_type not in _KINDS:
        raise ValueError(f"model_type: expected one of {', '.join(_KINDS)}, got {config.model_type!r}")
    kind = _KINDS[config.model_type]
    if config.hidden_act not in ("silu", "swish"):
        raise ValueError(f"hidden_act: expected silu, got {config.hidden_act!r}")
    if getattr(config, "mlp_bias", False):
        raise ValueError("mlp_bias: our MLP has no biases; expected False, got True")
    parameters = dict(config.rope_parameters)
    theta = parameters.pop("rope_theta")
    qkv_bias, o_bias = kind.biases(config)
    attention = {
        "num_heads": config.num_attention_heads,
        "num_kv_heads": config.num_key_value_heads,
        "qkv_bias": qkv_bias,
        "qk_norm": kind.qk_norm,
        "head_dim": getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        "o_bias": o_bias,
        "rope_theta": theta,
        "rope_scaling": None if parameters == {"rope_type": "default"} else parameters,
    }
    window, others = _windows(list(kind.windows(config)))
    entry = {**attention, "norm_eps": config.rms_norm_eps, **others} if others else None
    return TransformerConfig(
        **{key: getattr(config, key) for key in _SAME},
        **attention,
        norm_eps=config.rms_norm_eps,
        qk_norm_eps=config.rms_norm_eps,
        window_size=window,
        attn=entry,
    )


def _windows(windows: list[int | None]) -> tuple[int | None, dict[str, Any]]:
    """The window of all layers, or None and the entry of ``attn`` for those that have one."""
    if len(set(windows)) == 1:
        return windows[0], {}
    layers = [layer for layer, window in enumerate(windows) if window is not None]
    return None, {"layers": layers, "window_size": windows[layers[0]]}


def _options_of_theirs(model: TransformerForCausalLM) -> tuple[_Kind, dict[str, Any]]:
    """The model type of transformers that is likeliest to be this model, and the options of its config."""
    config, layers = model.config, [block.attn for block in model.model.layers]
    if other := [layer for layer in layers if type(layer) is not Attention]:
        raise ValueError(f"attn: transformers has no model with {type(other[0]).__name__} beside attention")
    first, windows = layers[0], [layer.window_size for layer in layers]
    if first.rope_theta is None:
        raise ValueError("rope_theta: expected a number, as transformers' models have positions; got None")
    q_bias, o_bias = first.q_proj.bias is not None, first.o_proj.bias is not None
    window = next((window for window in windows if window is not None), None)
    name = "qwen3" if first.qk_norm else "qwen2" if q_bias and not o_bias else "mistral" if window else "llama"
    options = {
        **{key: getattr(config, key) for key in _SAME},
        "intermediate_size": model.model.layers[0].mlp.intermediate_size,
        "num_attention_heads": first.num_heads,
        "num_key_value_heads": first.num_kv_heads,
        "rms_norm_eps": config.norm_eps,
        "rope_parameters": {
            "rope_type": first.rotary.scaling.kind,
            "rope_theta": first.rope_theta,
            **first.rotary.scaling.options,
        },
    }
    if first.head_dim * first.num_heads != config.hidden_size or name != "qwen2":
        options["head_dim"] = first.head_dim
    if name in ("llama", "qwen3"):
        options["attention_bias"] = q_bias
    if name == "mistral":
        options["sliding_window"] = window
    if name in ("qwen2", "qwen3"):
        types = [_FULL if window is None else _SLIDING for window in windows]
        options |= {"use_sliding_window": window is not None, "sliding_window": window, "layer_types": types}
    return _KINDS[name], options


def _check_way_back(model: TransformerForCausalLM, config: Any, kind: _Kind) -> None:
    """Check that this config of transformers, read again, makes the model that we have."""
    again = hollow(TransformerForCausalLM, _config_of_ours(config))
    for layer, (got, theirs) in enumerate(zip(model.model.layers, again.model.layers)):
        for (key, value), other in zip(_facts(got).items(), _facts(theirs).values()):
            if value != other:
                raise ValueError(f"{key}: layer {layer} has {value}, where transformers' {kind.stem} has {other}")


def _facts(block: Any) -> dict[str, Any]:
    """The properties that tell one block from another."""
    attention = block.attn
    facts = {key: getattr(attention, key) for key in ("num_heads", "num_kv_heads", "head_dim", "qk_norm")}
    return {
        **facts,
        "qkv_bias": attention.q_proj.bias is not None,
        "o_bias": attention.o_proj.bias is not None,
        "window_size": attention.window_size,
        "rope_theta": attention.rope_theta,
        "rope_scaling": (attention.rotary.scaling.kind, attention.rotary.scaling.options),
        "qk_norm_eps": attention.q_norm.eps if attention.qk_norm else None,
        "hidden_act": block.mlp.hidden_act.replace("silu", "swish"),
    }


def _renamed(name: str, parts: Mapping[str, str]) -> str:
    for part, other in parts.items():
        name = name.replace(part, other)
    return name
