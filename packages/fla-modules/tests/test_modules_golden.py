"""Modules and functions take and give what those of flash-linear-attention 0.6.0 do, on the same weights and inputs."""

from __future__ import annotations

import ast
import inspect
import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from fla.utils.numerics import assert_close, rounding_band

TARGET = torch.tensor([0, -100, 6, 3, 3, -100])

with safe_open(Path(__file__).parent / "golden/modules.safetensors", "pt") as _file:
    TENSORS = {key: _file.get_tensor(key) for key in _file.keys()}  # noqa: SIM118
    CASES: list[dict[str, Any]] = json.loads(_file.metadata()["cases"])


def title(case: dict[str, Any]) -> str:
    options = {**(case["constructor"] or {}), **case["options"]}
    return f"{case['name']}({', '.join(f'{name}={value}' for name, value in options.items())})"


def tensors(case: dict[str, Any], kind: str, device: torch.device) -> dict[str, torch.Tensor]:
    prefix = f"{case['key']}.{kind}."
    return {k.removeprefix(prefix): t.to(device) for k, t in TENSORS.items() if k.startswith(prefix)}


@pytest.mark.parametrize("case", CASES, ids=title)
def test_gives_what_flash_linear_attention_gave(case: dict[str, Any], device: torch.device) -> None:
    function, options = getattr(import_module(f"fla.modules.{case['module']}"), case["name"]), dict(case["options"])
    inputs = tensors(case, "input", device)
    if case["constructor"] is not None:
        function = function(**case["constructor"]).to(device)
        function.load_state_dict(tensors(case, "param", device))
    if "target" in options:
        options["target"] = TARGET.to(device)
    if "positional" in options:
        result = function(*inputs.values(), options.pop("target"), *options.pop("positional"), **options)
    elif case["constructor"] is None:
        result = function(*(inputs[name] for name in case["order"]), **options)
    else:
        result = function(**inputs, **options)
    results = result if isinstance(result, tuple) else (result,)
    assert len(results) == case["outputs"]
    for n, expected in tensors(case, "output", device).items():
        assert_close(title(case), expected, results[int(n)], rounding_band(torch.float32))


#: The parameters that each has there, in their order.
SIGNATURES = {
    "activations.bias_gelu": "y, bias",
    "activations.logsigmoid": "x, temperature=1.0",
    "activations.powglu": "x, y, power=3.0",
    "activations.swiglu_linear": "x, y, weight, bias",
    "convolution.ShortConvolution": (
        "hidden_size, kernel_size, bias=False, activation='silu', backend='triton', device=None, dtype=None"
    ),
    "convolution.ShortConvolution.forward": (
        "x, residual=None, mask=None, cache=None, output_final_state=False, cu_seqlens=None, chunk_indices=None"
    ),
    "convolution.causal_conv1d": (
        "x, weight=None, bias=None, residual=None, initial_state=None, output_final_state=False, "
        "activation=None, backend='triton', cu_seqlens=None, cu_seqlens_cpu=None, chunk_indices=None, "
        "cp_context=None"
    ),
    "convolution.causal_conv1d_update": "x, cache, residual=None, weight=None, bias=None, activation=None",
    "feature_map.DPFPFeatureMap": "head_dim, nu=4",
    "feature_map.HadamardFeatureMap": "head_dim",
    "feature_map.HedgehogFeatureMap": "head_dim",
    "feature_map.LearnableOuterProductFeatureMap": "head_dim, feature_dim",
    "feature_map.LearnablePolySketchNonNegativeFeatureMap": "head_dim, sketch_size=None, degree=2",
    "feature_map.RebasedFeatureMap": "head_dim, use_gamma=True, use_beta=True, normalize=True",
    "feature_map.RebasedFeatureMap.forward": "x, flatten=True",
    "feature_map.T2RFeatureMap": "head_dim, dot_dim=None, bias=False",
    "feature_map.TaylorFeatureMap": "head_dim",
    "fused_bitlinear.BitLinear": "in_features, out_features, bias=False, norm_eps=1e-08",
    "fused_bitlinear.FusedBitLinear": "in_features, out_features, bias=False",
    "fused_bitlinear.rms_norm_linear_quant": (
        "x, norm_weight, norm_bias, linear_weight, linear_bias, residual=None, eps=1e-05, prenorm=False, "
        "residual_in_fp32=False"
    ),
    "fused_bitlinear.weight_quant": "w",
    "fused_cross_entropy.FusedCrossEntropyLoss": (
        "ignore_index=-100, reduction='mean', label_smoothing=0.0, logit_scale=1.0, lse_square_scale=0.0, "
        "logit_softcapping=None, inplace_backward=False, process_group=None, return_z_loss=False"
    ),
    "fused_cross_entropy.FusedCrossEntropyLoss.forward": "input, target",
    "fused_cross_entropy.cross_entropy_loss": (
        "logits, target, label_smoothing=0.0, logit_scale=1.0, lse_square_scale=0.0, logit_softcapping=None, "
        "ignore_index=-100, inplace_backward=False, process_group=None"
    ),
    "fused_linear_cross_entropy.FusedLinearCrossEntropyLoss": (
        "ignore_index=-100, label_smoothing=0.0, logit_scale=1.0, logit_softcapping=None, num_chunks=8, "
        "reduction='mean', use_l2warp=False, l2_penalty_factor=0.0001, accumulate_grad_in_fp32=True, "
        "process_group=None"
    ),
    "fused_linear_cross_entropy.FusedLinearCrossEntropyLoss.forward": "x, target, weight, bias=None",
    "fused_linear_cross_entropy.fused_linear_cross_entropy_loss": (
        "x, target, weight, bias=None, ignore_index=-100, label_smoothing=0.0, logit_scale=1.0, "
        "logit_softcapping=None, num_chunks=8, reduction='mean', use_l2warp=False, l2_penalty_factor=0.0001, "
        "accumulate_grad_in_fp32=True, process_group=None"
    ),
    "fused_norm_gate.FusedLayerNormGated": (
        "hidden_size, elementwise_affine=True, bias=False, activation='swish', eps=1e-05, device=None, dtype=None"
    ),
    "fused_norm_gate.FusedLayerNormGated.forward": "x, g, residual=None, prenorm=False, residual_in_fp32=False",
    "fused_norm_gate.FusedRMSNormGated": (
        "hidden_size, elementwise_affine=True, eps=1e-05, activation='swish', device=None, dtype=None"
    ),
    "fused_norm_gate.FusedRMSNormGated.forward": "x, g, residual=None, prenorm=False, residual_in_fp32=False",
    "fused_norm_gate.layer_norm_gated": (
        "x, g, weight, bias, activation='swish', residual=None, prenorm=False, residual_in_fp32=False, eps=1e-06"
    ),
    "fused_norm_gate.rms_norm_gated": (
        "x, g, weight, bias, activation='swish', residual=None, prenorm=False, residual_in_fp32=False, eps=1e-06"
    ),
    "l2norm.L2Norm": "eps=1e-06, output_dtype=None",
    "l2norm.l2_norm": "x, eps=1e-06, output_dtype=None",
    "l2norm.l2norm": "x, eps=1e-06, output_dtype=None",
    "layernorm.GroupNorm": (
        "num_groups, hidden_size, elementwise_affine=True, bias=False, eps=1e-05, is_rms_norm=False, "
        "device=None, dtype=None"
    ),
    "layernorm.GroupNorm.forward": "x, residual=None, prenorm=False, residual_in_fp32=False",
    "layernorm.LayerNorm": "hidden_size, elementwise_affine=True, bias=False, eps=1e-05, device=None, dtype=None",
    "layernorm.LayerNorm.forward": "x, residual=None, prenorm=False, residual_in_fp32=False",
    "layernorm.RMSNorm": "hidden_size, elementwise_affine=True, bias=False, eps=1e-05, device=None, dtype=None",
    "layernorm.RMSNorm.forward": "x, residual=None, prenorm=False, residual_in_fp32=False",
    "layernorm.group_norm": (
        "x, weight, bias, residual=None, eps=1e-05, prenorm=False, residual_in_fp32=False, "
        "is_rms_norm=False, num_groups=1"
    ),
    "layernorm.layer_norm": (
        "x, weight, bias, residual=None, eps=1e-05, prenorm=False, residual_in_fp32=False, is_rms_norm=False"
    ),
    "layernorm.rms_norm": "x, weight, bias, residual=None, eps=1e-05, prenorm=False, residual_in_fp32=False",
    "mlp.GatedMLP": (
        "hidden_size, hidden_ratio=None, intermediate_size=None, hidden_act='swish', fuse_swiglu=True, powglu_power=3.0"
    ),
    "rotary.RotaryEmbedding": (
        "dim, base=10000.0, scale_base=None, interleaved=False, pos_idx_in_fp32=True, device=None"
    ),
    "rotary.RotaryEmbedding.forward": "q, k, seqlen_offset=0, cu_seqlens=None, max_seqlen=None, chunk_indices=None",
    "rotary.rotary_embedding": (
        "x, cos, sin, interleaved=False, inplace=False, seqlen_offsets=0, cu_seqlens=None, chunk_indices=None"
    ),
    "token_shift.token_shift": "x, cu_seqlens=None, cache=None, output_cache=False, chunk_indices=None",
    "token_shift.token_shift_ref": "x, cu_seqlens=None",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_positional_argument_means_what_it_means_in_flash_linear_attention(name: str) -> None:
    path, *rest = name.split(".")
    function: Any = import_module(f"fla.modules.{path}")
    for part in rest:
        function = getattr(function, part)
    if rest[-1] == "forward":
        function = function.__get__(object())
    ours = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.KEYWORD_ONLY]
    theirs = ast.parse(f"lambda {SIGNATURES[name]}: 0", mode="eval").body.args  # type: ignore[attr-defined]
    defaults = [inspect.Parameter.empty] * (len(theirs.args) - len(theirs.defaults))
    defaults += [ast.literal_eval(default) for default in theirs.defaults]
    for parameter, argument, default in zip(ours, theirs.args, defaults):
        if parameter.name != argument.arg:
            # Whatever else stands there is refused by value.
            assert parameter.name == "backend"
        elif default is not inspect.Parameter.empty and parameter.default is not inspect.Parameter.empty:
            assert parameter.default == (None if parameter.name == "backend" else default)
