"""Releases of RWKV-6 and RWKV-7, as their authors name the weights, as ours, and back."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from fla.models.base.rwkv import RWKVConfig
from fla.models.convert.weights.filled import Converted, Weights, filled
from fla.models.rwkv6 import RWKV6Config, RWKV6ForCausalLM
from fla.models.rwkv7 import RWKV7Config, RWKV7ForCausalLM

#: Added to the variance in the norm of each head's output, and in all other norms.
_OUTPUT_EPS, _EPS = 64e-5, 1e-5
#: Channels of a head of RWKV-7: its norm of the output depends on them in ours, and does not in the releases.
_HEAD_DIM_7 = 64
#: The end of a text in both vocabularies that the releases have.
_END_OF_TEXT = 0
#: Parts that RWKV-6 mixes of a token and the one before it, in the order of the releases and in ours.
_PARTS_6, _OUR_PARTS_6 = "wkvrg", "rwkvg"


class _Form(NamedTuple):
    """The conversion of a tensor of a release to ours, and back."""

    read: Callable[[torch.Tensor], torch.Tensor]
    write: Callable[[torch.Tensor], torch.Tensor]


def _same(x: torch.Tensor) -> torch.Tensor:
    return x


def _row(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(1, 1, -1)


def _turned(x: torch.Tensor) -> torch.Tensor:
    return x.mT.contiguous()


_SAME, _ROW = _Form(_same, _same), _Form(_row, _row)
#: One number for each channel: ``[1, 1, C]`` in a release.
_VECTOR = _Form(torch.flatten, _row)
#: A factor of a low-rank projection: ``[inputs, outputs]`` in a release.
_MATRIX = _Form(_turned, _turned)

_NORM = ("weight", "bias")
#: Name in a release -> ours and its form, outside the blocks and in each of them.
_OUTSIDE = {
    "emb.weight": ("model.embeddings.weight", _SAME),
    **{f"blocks.0.ln0.{key}": (f"model.layers.0.pre_norm.{key}", _SAME) for key in _NORM},
    **{f"ln_out.{key}": (f"model.norm.{key}", _SAME) for key in _NORM},
    "head.weight": ("lm_head.weight", _SAME),
}
_BLOCK = {
    **{f"ln1.{key}": (f"attn_norm.{key}", _SAME) for key in _NORM},
    **{f"ln2.{key}": (f"ffn_norm.{key}", _SAME) for key in _NORM},
    **{f"att.ln_x.{key}": (f"attn.g_norm.{key}", _SAME) for key in _NORM},
    "att.output.weight": ("attn.o_proj.weight", _SAME),
    "ffn.value.weight": ("ffn.value.weight", _SAME),
}
_BLOCK_6 = {
    **_BLOCK,
    "att.receptance.weight": ("attn.r_proj.linear.weight", _SAME),
    "att.key.weight": ("attn.k_proj.linear.weight", _SAME),
    "att.value.weight": ("attn.v_proj.linear.weight", _SAME),
    "att.gate.weight": ("attn.g_proj.linear.weight", _SAME),
    "att.time_faaaa": ("attn.bonus", _SAME),
    "att.time_maa_x": ("attn.x_proj.0.mu", _VECTOR),
    "att.time_decay": ("attn.w_proj.linear.lora.2.bias", _VECTOR),
    "att.time_decay_w1": ("attn.w_proj.linear.lora.0.weight", _MATRIX),
    "att.time_decay_w2": ("attn.w_proj.linear.lora.2.weight", _MATRIX),
    "ffn.time_maa_k": ("ffn.key.mu", _VECTOR),
    "ffn.time_maa_r": ("ffn.receptance.mu", _VECTOR),
    "ffn.key.weight": ("ffn.key.linear.weight", _SAME),
    "ffn.receptance.weight": ("ffn.receptance.linear.weight", _SAME),
}
#: Weights of the shares that RWKV-6 mixes, which ours keeps in another arrangement.
_SHARES_6 = ("att.time_maa_w1", "att.time_maa_w2", *(f"att.time_maa_{part}" for part in _PARTS_6))
_BLOCK_7 = {
    **_BLOCK,
    **{f"att.x_{part}": (f"attn.x_{part}", _ROW) for part in "rwkvag"},
    "att.receptance.weight": ("attn.r_proj.weight", _SAME),
    "att.key.weight": ("attn.k_proj.weight", _SAME),
    "att.value.weight": ("attn.v_proj.weight", _SAME),
    "att.r_k": ("attn.r_k", _SAME),
    "att.k_k": ("attn.k_k", _VECTOR),
    "att.k_a": ("attn.k_a", _VECTOR),
    **{f"att.{part}0": (f"attn.{part}_lora.lora.2.bias", _VECTOR) for part in "wav"},
    **{f"att.{part}1": (f"attn.{part}_lora.lora.0.weight", _MATRIX) for part in "wavg"},
    **{f"att.{part}2": (f"attn.{part}_lora.lora.2.weight", _MATRIX) for part in "wavg"},
    "ffn.x_k": ("ffn.x_k", _VECTOR),
    "ffn.key.weight": ("ffn.key.weight", _SAME),
}
#: Weights by which the first layer would draw its values towards itself: some releases hold them, none is read.
_IDLE_7 = tuple(f"blocks.0.att.v{n}" for n in range(3))


def rwkv6_from_release(weights: Weights) -> RWKV6ForCausalLM:
    """A release of RWKV-6 ("x060") as our model.

    Example::

        release = torch.load("RWKV-x060-World-1B6-v2.1-20240328-ctx4096.pth", map_location="cpu", weights_only=True)
        rwkv6_from_release(release).save_pretrained("ours")

    Args:
        weights: the weights by their names in the file: ``emb.weight``, ``blocks.0.att.time_maa_x`` and so on.

    Returns:
        Our model, in the dtype and on the device of the weights. All sizes follow from their shapes.

    Raises:
        KeyError: a weight is missing.
        ValueError: a weight that ours has no place for, or another shape than the others ask for.
    """
    return filled(RWKV6ForCausalLM, read_rwkv6(weights))


def rwkv6_to_release(model: RWKV6ForCausalLM) -> dict[str, torch.Tensor]:
    """Our RWKV-6 with the names of a release: the way back of :func:`rwkv6_from_release`.

    Args:
        model: our model.

    Returns:
        The weights by their names in a release; most share their memory with those of the model.

    Raises:
        ValueError: an option that the releases do not have.
    """
    config = model.config
    _check_options(config, {"expand_v": config.expand_k}, config.mixer_norm_eps)
    weights, names = model.state_dict(), _names(_BLOCK_6, config.num_hidden_layers)
    release = {theirs: form.write(weights[ours]) for theirs, (ours, form) in names.items()}
    for layer in range(config.num_hidden_layers):
        prefix, part = f"model.layers.{layer}.attn.", f"blocks.{layer}.att.time_maa_"
        order = [_OUR_PARTS_6.index(name) for name in _PARTS_6]
        down = weights[f"{prefix}x_proj.0.linear.weight"].unflatten(0, (len(order), -1))[order]
        up = weights[f"{prefix}x_proj.2.weight"].unflatten(1, (len(order), -1))[:, order]
        release[f"{part}w1"], release[f"{part}w2"] = _turned(down.flatten(0, 1)), up.permute(1, 2, 0).contiguous()
        shares = zip(_OUR_PARTS_6, weights[f"{prefix}x_bias"])
        release |= {f"{part}{name}": _row(share) for name, share in shares}
    return release


def rwkv7_from_release(weights: Weights) -> RWKV7ForCausalLM:
    """A release of RWKV-7 ("x070") as our model.

    Example::

        release = torch.load("RWKV-x070-World-0.1B-v2.8-20241210-ctx4096.pth", map_location="cpu", weights_only=True)
        rwkv7_from_release(release).save_pretrained("ours")

    Args:
        weights: the weights by their names in the file: ``emb.weight``, ``blocks.0.att.x_r`` and so on.

    Returns:
        Our model, in the dtype and on the device of the weights. All sizes follow from their shapes.

    Raises:
        KeyError: a weight is missing.
        ValueError: a weight that ours has no place for, heads that are not of 64 channels, or another shape than the
            others ask for.
    """
    return filled(RWKV7ForCausalLM, read_rwkv7(weights))


def rwkv7_to_release(model: RWKV7ForCausalLM) -> dict[str, torch.Tensor]:
    """Our RWKV-7 with the names of a release: the way back of :func:`rwkv7_from_release`.

    Args:
        model: our model.

    Returns:
        The weights by their names in a release; most share their memory with those of the model.

    Raises:
        ValueError: an option that the releases do not have.
    """
    config = model.config
    _check_options(config, {}, config.norm_eps * _HEAD_DIM_7)
    first = model.model.layers[0].attn
    _check_head_dim(first.head_dim)
    if first.value_dim != config.hidden_size:
        raise ValueError(f"value_dim: releases of RWKV-7 have hidden_size={config.hidden_size}, got {first.value_dim}")
    weights, names = model.state_dict(), _names(_BLOCK_7, config.num_hidden_layers)
    return {theirs: form.write(weights[ours]) for theirs, (ours, form) in names.items() if theirs not in _IDLE_7}


def read_rwkv6(weights: Weights) -> Converted[RWKV6Config]:
    """Weights of a release as ours, and the config that follows from their shapes."""
    num_heads, head_dim = weights["blocks.0.att.time_faaaa"].shape
    shape = _shape(weights)
    config = RWKV6Config(
        **shape,
        num_heads=num_heads,
        expand_k=num_heads * head_dim / shape["hidden_size"],
        expand_v=num_heads * head_dim / shape["hidden_size"],
        proj_low_rank_dim=weights["blocks.0.att.time_maa_w2"].shape[1],
        gate_low_rank_dim=weights["blocks.0.att.time_decay_w1"].shape[1],
        output_norm_eps=_OUTPUT_EPS,
    )
    layers = range(config.num_hidden_layers)
    shares = tuple(f"blocks.{layer}.{share}" for layer in layers for share in _SHARES_6)
    ours = _read(weights, _names(_BLOCK_6, config.num_hidden_layers), shares)
    for layer in layers:
        part, prefix = f"blocks.{layer}.att.time_maa_", f"model.layers.{layer}.attn."
        order = [_PARTS_6.index(name) for name in _OUR_PARTS_6]
        down = _turned(weights[f"{part}w1"]).unflatten(0, (len(order), -1))[order]
        up = weights[f"{part}w2"][order].permute(2, 0, 1)
        ours[f"{prefix}x_proj.0.linear.weight"], ours[f"{prefix}x_proj.2.weight"] = down.flatten(0, 1), up.flatten(1)
        ours[f"{prefix}x_bias"] = torch.stack([weights[f"{part}{name}"].flatten() for name in _OUR_PARTS_6])
    return Converted(config, ours)


def read_rwkv7(weights: Weights) -> Converted[RWKV7Config]:
    """Weights of a release as ours, and the config that follows from their shapes."""
    _check_head_dim(weights["blocks.0.att.r_k"].shape[1])
    shape, ranks = _shape(weights), {"decay": "w", "a": "a", "gate": "g"}
    if shape["num_hidden_layers"] > 1:
        ranks["v"] = "v"
    layer = shape["num_hidden_layers"] - 1
    shape |= {f"{key}_low_rank_dim": weights[f"blocks.{layer}.att.{part}1"].shape[1] for key, part in ranks.items()}
    config = RWKV7Config(**shape, head_dim=_HEAD_DIM_7)
    names = _names(_BLOCK_7, config.num_hidden_layers)
    return Converted(config, _read(weights, {key: names[key] for key in names if key not in _IDLE_7}, _IDLE_7))


def _names(block: dict[str, tuple[str, _Form]], layers: int) -> dict[str, tuple[str, _Form]]:
    """Name in a release -> ours and its form, of a whole model."""
    return _OUTSIDE | {
        f"blocks.{layer}.{theirs}": (f"model.layers.{layer}.{ours}", form)
        for layer in range(layers)
        for theirs, (ours, form) in block.items()
    }


def _read(weights: Weights, names: dict[str, tuple[str, _Form]], others: tuple[str, ...]) -> dict[str, torch.Tensor]:
    if unknown := [name for name in weights if name not in names and name not in others]:
        raise ValueError(f"weights: there is no place for {unknown[0]}")
    return {ours: form.read(weights[theirs]) for theirs, (ours, form) in names.items()}


def _shape(weights: Weights) -> dict[str, Any]:
    """The keys that both configs have."""
    blocks = {match[1] for name in weights if (match := re.match(r"blocks\.(\d+)\.", name))}
    vocab_size, hidden_size = weights["emb.weight"].shape
    return {
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "num_hidden_layers": len(blocks),
        "intermediate_size": weights["blocks.0.ffn.key.weight"].shape[0],
        "norm_eps": _EPS,
        "bos_token_id": _END_OF_TEXT,
        "eos_token_id": _END_OF_TEXT,
    }


def _check_head_dim(head_dim: int) -> None:
    if head_dim != _HEAD_DIM_7:
        raise ValueError(f"head_dim: releases of RWKV-7 have {_HEAD_DIM_7}, got {head_dim}")


def _check_options(config: RWKVConfig, options: dict[str, Any], output_eps: float) -> None:
    """Check that a config of ours has what all releases have."""
    fixed = {**options, "norm_eps": _EPS, "hidden_act": "sqrelu", "norm_first": True, "norm_bias": True, "attn": None}
    fixed |= {"elementwise_affine": True, "tie_word_embeddings": False}
    for key, value in fixed.items():
        if getattr(config, key) != value:
            raise ValueError(f"{key}: releases of RWKV have {value} only, got {getattr(config, key)}")
    if abs(output_eps - _OUTPUT_EPS) > 1e-3 * _OUTPUT_EPS:
        raise ValueError(f"output_norm_eps: releases of RWKV have {_OUTPUT_EPS} only, got {output_eps}")
