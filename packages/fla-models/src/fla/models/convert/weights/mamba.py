"""Mamba and Mamba-2 of transformers and of state-spaces as ours, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import transformers

from fla.models.base.backbone import BackboneConfig
from fla.models.convert.weights.filled import Converted, Weights, filled
from fla.models.mamba import MambaConfig, MambaForCausalLM
from fla.models.mamba2 import Mamba2Config, Mamba2ForCausalLM

#: Our key -> transformers' key, of what both have.
_TRANSFORMERS = {
    **{key: key for key in ("vocab_size", "hidden_size", "num_hidden_layers", "state_size", "hidden_act")},
    **{key: key for key in ("expand", "conv_kernel", "use_bias", "use_conv_bias")},
    **{key: key for key in ("initializer_range", "residual_in_fp32", "rescale_prenorm_residual")},
    **{key: key for key in ("use_cache", "tie_word_embeddings", "pad_token_id", "bos_token_id", "eos_token_id")},
    "norm_eps": "layer_norm_epsilon",
    "dt_min": "time_step_min",
    "dt_max": "time_step_max",
    "dt_init_floor": "time_step_floor",
}
_MAMBA_TRANSFORMERS = {
    **_TRANSFORMERS,
    "dt_rank": "time_step_rank",
    "dt_scale": "time_step_scale",
    "dt_init_scheme": "time_step_init_scheme",
}
_MAMBA2_TRANSFORMERS = {
    **_TRANSFORMERS,
    **{key: key for key in ("num_heads", "head_dim", "n_groups", "chunk_size")},
    "dt_limit": "time_step_limit",
}
#: Our key -> the key in ``ssm_cfg`` of state-spaces, of what both have.
_MAMBA_STATE_SPACES = {
    **{key: key for key in ("expand", "dt_rank", "dt_min", "dt_max", "dt_scale", "dt_init_floor")},
    "state_size": "d_state",
    "conv_kernel": "d_conv",
    "dt_init_scheme": "dt_init",
    "use_bias": "bias",
    "use_conv_bias": "conv_bias",
}
_MAMBA2_STATE_SPACES = {
    **{key: key for key in ("conv_init", "expand", "A_init_range", "D_has_hdim", "rmsnorm", "norm_before_gate")},
    **{key: key for key in ("dt_min", "dt_max", "dt_init_floor", "dt_limit", "chunk_size")},
    "state_size": "d_state",
    "conv_kernel": "d_conv",
    "head_dim": "headdim",
    "n_groups": "ngroups",
    "use_bias": "bias",
    "use_conv_bias": "conv_bias",
}
#: Options that our Mamba-2 has and transformers' has not, with the values that the latter amounts to.
_MAMBA2_ONLY_OURS = {"rmsnorm": True, "norm_before_gate": False, "D_has_hdim": False}
_EMBEDDING = {"ours": "backbone.embeddings.weight", "state_spaces": "backbone.embedding.weight"}


def mamba_from_transformers(model: transformers.MambaForCausalLM) -> MambaForCausalLM:
    """Transformers' own Mamba as ours, with the same weights under the same names.

    Example::

        theirs = transformers.AutoModelForCausalLM.from_pretrained("state-spaces/mamba-130m-hf")
        mamba_from_transformers(theirs).save_pretrained("ours")

    Args:
        model: transformers' model.

    Returns:
        Our model, in the dtype and on the device of the other.
    """
    return filled(MambaForCausalLM, read_mamba_of_transformers(model.config, model.state_dict()))


def mamba_to_transformers(model: MambaForCausalLM) -> transformers.MambaForCausalLM:
    """Our Mamba as transformers' own: the way back of :func:`mamba_from_transformers`.

    Args:
        model: our model.

    Returns:
        Transformers' model, in the dtype and on the device of ours.

    Raises:
        ValueError: an option that theirs does not have.
    """
    _check_expanded(model.config, "transformers' Mamba")
    known = {theirs: getattr(model.config, ours) for ours, theirs in _MAMBA_TRANSFORMERS.items()}
    return filled(transformers.MambaForCausalLM, Converted(transformers.MambaConfig(**known), model.state_dict()))


def mamba_from_state_spaces(config: Mapping[str, Any], weights: Weights) -> MambaForCausalLM:
    """A Mamba release of state-spaces as our model.

    Args:
        config: its ``config.json``: ``d_model``, ``n_layer``, ``ssm_cfg`` and so on, as the package mamba-ssm has them.
        weights: its ``pytorch_model.bin``, by name.

    Returns:
        Our model, in the dtype and on the device of the weights.

    Raises:
        ValueError: an option that we do not have.
    """
    return filled(MambaForCausalLM, read_mamba_of_state_spaces(config, weights))


def mamba_to_state_spaces(model: MambaForCausalLM) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Our Mamba as a release of state-spaces: the way back of :func:`mamba_from_state_spaces`.

    Args:
        model: our model.

    Returns:
        ``(config, weights)``; the weights share their memory with those of the model.

    Raises:
        ValueError: an option that theirs does not have.
    """
    config = model.config
    _check_expanded(config, "state-spaces' Mamba", norm_eps=1e-5)
    ssm = {theirs: getattr(config, ours) for ours, theirs in _MAMBA_STATE_SPACES.items()}
    return _config_of_state_spaces(config, {"layer": "Mamba1", **ssm}), _named_as_state_spaces(model.state_dict())


def mamba2_from_transformers(model: transformers.Mamba2ForCausalLM) -> Mamba2ForCausalLM:
    """Transformers' own Mamba-2 as ours, with the same weights under the same names.

    Example::

        theirs = transformers.AutoModelForCausalLM.from_pretrained("state-spaces/mamba2-...-hf")
        mamba2_from_transformers(theirs).save_pretrained("ours")

    Each of several groups is normalised by itself, as mamba-ssm does and these models were trained. Transformers took
    all groups together until its ``MambaRMSNormGated`` got a ``group_size``: logits of earlier releases differ there.

    Args:
        model: transformers' model.

    Returns:
        Our model, in the dtype and on the device of the other.
    """
    return filled(Mamba2ForCausalLM, read_mamba2_of_transformers(model.config, model.state_dict()))


def mamba2_to_transformers(model: Mamba2ForCausalLM) -> transformers.Mamba2ForCausalLM:
    """Our Mamba-2 as transformers' own: the way back of :func:`mamba2_from_transformers`.

    Args:
        model: our model.

    Returns:
        Transformers' model, in the dtype and on the device of ours.

    Raises:
        ValueError: an option that theirs does not have.
    """
    _check_plain(model.config, _MAMBA2_ONLY_OURS, "transformers' Mamba2")
    known = {theirs: getattr(model.config, ours) for ours, theirs in _MAMBA2_TRANSFORMERS.items()}
    known["num_heads"] = int(model.config.expand * model.config.hidden_size) // model.config.head_dim
    return filled(transformers.Mamba2ForCausalLM, Converted(transformers.Mamba2Config(**known), model.state_dict()))


def mamba2_from_state_spaces(config: Mapping[str, Any], weights: Weights) -> Mamba2ForCausalLM:
    """A Mamba-2 release of state-spaces as our model.

    Args:
        config: its ``config.json``: ``d_model``, ``n_layer``, ``ssm_cfg`` and so on, as the package mamba-ssm has them.
        weights: its ``pytorch_model.bin``, by name.

    Returns:
        Our model, in the dtype and on the device of the weights.

    Raises:
        ValueError: an option that we do not have.
    """
    return filled(Mamba2ForCausalLM, read_mamba2_of_state_spaces(config, weights))


def mamba2_to_state_spaces(model: Mamba2ForCausalLM) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Our Mamba-2 as a release of state-spaces: the way back of :func:`mamba2_from_state_spaces`.

    Args:
        model: our model.

    Returns:
        ``(config, weights)``; the weights share their memory with those of the model.

    Raises:
        ValueError: an option that theirs does not have.
    """
    config = model.config
    _check_plain(config, {"norm_eps": 1e-5}, "state-spaces' Mamba2")
    ssm = {theirs: getattr(config, ours) for ours, theirs in _MAMBA2_STATE_SPACES.items()}
    return _config_of_state_spaces(config, {"layer": "Mamba2", **ssm}), _named_as_state_spaces(model.state_dict())


def read_mamba_of_transformers(config: transformers.MambaConfig, weights: Weights) -> Converted[MambaConfig]:
    """Transformers' config and weights as ours."""
    known = {ours: getattr(config, theirs) for ours, theirs in _MAMBA_TRANSFORMERS.items()}
    return Converted(MambaConfig(**known), _with_head(weights, config.tie_word_embeddings))


def read_mamba2_of_transformers(config: transformers.Mamba2Config, weights: Weights) -> Converted[Mamba2Config]:
    """Transformers' config and weights as ours."""
    known = {ours: getattr(config, theirs) for ours, theirs in _MAMBA2_TRANSFORMERS.items()}
    return Converted(Mamba2Config(**known), _with_head(weights, config.tie_word_embeddings))


def read_mamba_of_state_spaces(config: Mapping[str, Any], weights: Weights) -> Converted[MambaConfig]:
    """Config and weights of a release of state-spaces as ours."""
    options = _options_of_state_spaces(config, "Mamba1", _MAMBA_STATE_SPACES)
    ours = MambaConfig(**options, **_shape_of_state_spaces(config, weights))
    return Converted(ours, _named_as_ours(weights, ours))


def read_mamba2_of_state_spaces(config: Mapping[str, Any], weights: Weights) -> Converted[Mamba2Config]:
    """Config and weights of a release of state-spaces as ours."""
    options = _options_of_state_spaces(config, "Mamba2", _MAMBA2_STATE_SPACES)
    ours = Mamba2Config(**options, **_shape_of_state_spaces(config, weights))
    return Converted(ours, _named_as_ours(weights, ours))


def _check_plain(config: BackboneConfig, options: Mapping[str, Any], whose: str) -> None:
    for key, value in {**options, "attn": None}.items():
        if getattr(config, key) != value:
            raise ValueError(f"{key}: {whose} has {value} only, got {getattr(config, key)}")


def _check_expanded(config: MambaConfig, whose: str, **options: Any) -> None:
    _check_plain(config, {"intermediate_size": int(config.expand * config.hidden_size), **options}, whose)


def _options_of_state_spaces(config: Mapping[str, Any], layer: str, keys: Mapping[str, str]) -> dict[str, Any]:
    """``ssm_cfg`` by our keys."""
    ssm = dict(config.get("ssm_cfg", {}))
    _check_state_spaces(config, ssm.pop("layer", "Mamba1"), layer)
    names = {theirs: ours for ours, theirs in keys.items()}
    if unknown := ssm.keys() - names.keys():
        raise ValueError(f"ssm_cfg: expected {', '.join(sorted(names))}, got {', '.join(sorted(unknown))} as well")
    return {names[theirs]: value for theirs, value in ssm.items()}


def _check_state_spaces(config: Mapping[str, Any], layer: str, wanted: str) -> None:
    if layer != wanted:
        raise ValueError(f"ssm_cfg: expected layer {wanted}, got {layer}")
    for key, value in {"d_intermediate": 0, "rms_norm": True, "attn_layer_idx": []}.items():
        if config.get(key, value) != value:
            raise ValueError(f"{key}: expected {value}, got {config[key]}")


def _shape_of_state_spaces(config: Mapping[str, Any], weights: Weights) -> dict[str, Any]:
    return {
        # The config counts the tokens before they are padded to a multiple of 8 or 16.
        "vocab_size": weights[_EMBEDDING["state_spaces"]].shape[0],
        "hidden_size": config["d_model"],
        "num_hidden_layers": config["n_layer"],
        "residual_in_fp32": config.get("residual_in_fp32", True),
        "tie_word_embeddings": config.get("tie_embeddings", True),
    }


def _config_of_state_spaces(config: BackboneConfig, ssm: dict[str, Any]) -> dict[str, Any]:
    return {
        "d_model": config.hidden_size,
        "d_intermediate": 0,
        "n_layer": config.num_hidden_layers,
        "vocab_size": config.vocab_size,
        "pad_vocab_size_multiple": 1,
        "ssm_cfg": ssm,
        "attn_layer_idx": [],
        "rms_norm": True,
        "residual_in_fp32": config.residual_in_fp32,
        "tie_embeddings": config.tie_word_embeddings,
    }


def _named_as_ours(weights: Weights, config: BackboneConfig) -> dict[str, torch.Tensor]:
    renamed = dict(weights)
    renamed[_EMBEDDING["ours"]] = renamed.pop(_EMBEDDING["state_spaces"])
    return _with_head(renamed, config.tie_word_embeddings)


def _with_head(weights: Weights, tied: bool) -> dict[str, torch.Tensor]:
    """The weights with those of the head, which a file leaves out where they are the embeddings."""
    return {"lm_head.weight": weights[_EMBEDDING["ours"]], **weights} if tied else dict(weights)


def _named_as_state_spaces(weights: Weights) -> dict[str, torch.Tensor]:
    renamed = dict(weights)
    renamed[_EMBEDDING["state_spaces"]] = renamed.pop(_EMBEDDING["ours"])
    return renamed
