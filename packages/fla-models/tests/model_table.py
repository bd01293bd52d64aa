"""The rows that every model's tests run over, and what they do with a model; a new model adds rows to ``MODELS``."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch

import fla.models
from fla.models.base.configuration import FLAConfig
from fla.models.base.modeling import FLAForCausalLM
from fla.utils.numerics import agreement


class Model(NamedTuple):
    """A class stem and what its config differs in from the small ones of these tests."""

    stem: str
    options: dict[str, Any] = {}

    def config(self) -> FLAConfig:
        small = {"hidden_size": 32, "num_hidden_layers": 2, "num_heads": 2, "vocab_size": 64, "initializer_range": 0.2}
        # The warp is of the mean over all tokens, padding too.
        small |= {"intermediate_size": 48, "eos_token_id": None, "use_l2warp": False}
        config_class = getattr(fla.models, f"{self.stem}Config")
        small = {key: value for key, value in small.items() if hasattr(config_class, key)}
        return config_class(**{**small, **self.options})

    def start(self, **options: Any) -> FLAForCausalLM:
        torch.manual_seed(0)
        config = self._replace(options={**self.options, **options}).config()
        return getattr(fla.models, f"{self.stem}ForCausalLM")(config).eval()

    def build(self, **options: Any) -> FLAForCausalLM:
        """Where nothing is hidden behind a matrix that starts at zero."""
        lm = self.start(**options)
        with torch.no_grad():
            for name, parameter in lm.named_parameters():
                if parameter.ndim == 2 and not parameter.any():
                    parameter.normal_(std=0.1)
                # The values of a first token are whole numbers times one: without a weight some lie between two steps.
                if name.endswith("_proj.norm.weight"):
                    parameter.uniform_(0.5, 1.5)
        return lm


WINDOWED = {"layers": [1], "num_heads": 4, "num_kv_heads": 2, "window_size": 9}
MODELS = {
    "gla": Model("GLA"),
    "gla, options": Model("GLA", {"num_kv_heads": 1, "use_short_conv": True, "fuse_norm": False, "expand_k": 1}),
    "gla, hybrid": Model("GLA", {"num_hidden_layers": 3, "attn": [WINDOWED, {"layers": [2], "num_heads": 2}]}),
    "gsa": Model("GSA", {"num_slots": 12}),
    "gsa, hybrid": Model(
        "GSA",
        {
            "num_heads": 4,
            "num_kv_heads": 2,
            "num_slots": None,
            "use_short_conv": True,
            "use_output_gate": True,
            "exapnd_v": 2,
            "attn": WINDOWED,
        },
    ),
    "abc": Model("ABC", {"num_slots": 12}),
    "abc, hybrid": Model(
        "ABC",
        {"exapnd_k": 1, "num_slots": None, "use_short_conv": True, "num_hidden_layers": 3, "attn": WINDOWED},
    ),
    "abc, no positions": Model("ABC", {"use_rope": False, "clamp_max": 1.0}),
    "hgrn": Model("HGRN"),
    "hgrn, hybrid": Model(
        "HGRN",
        {"attn_mode": "chunk", "expand_ratio": 2, "use_short_conv": True, "num_hidden_layers": 3, "attn": WINDOWED},
    ),
    "hgrn, no bounds": Model("HGRN", {"use_lower_bound": False}),
    "hgrn2": Model("HGRN2", {"expand_ratio": 24}),
    "hgrn2, hybrid": Model(
        "HGRN2",
        {"num_heads": None, "expand_ratio": 16, "use_short_conv": True, "num_hidden_layers": 3, "attn": WINDOWED},
    ),
    "hgrn2, no bounds": Model("HGRN2", {"expand_ratio": None, "use_lower_bound": False}),
    "lightnet": Model("LightNet", {"expand_ratio": 8}),
    "lightnet, hybrid": Model("LightNet", {"expand_ratio": None, "use_short_conv": True, "attn": WINDOWED}),
    "retnet": Model("RetNet"),
    "retnet, hybrid": Model(
        "RetNet", {"attn_mode": "parallel", "num_heads": 4, "num_kv_heads": 2, "use_short_conv": True, "attn": WINDOWED}
    ),
    "simple_gla": Model("SimpleGLA"),
    "simple_gla, hybrid": Model(
        "SimpleGLA", {"num_heads": 4, "num_kv_heads": 2, "feature_map": "elu", "fuse_norm": False, "attn": WINDOWED}
    ),
    "rwkv6": Model("RWKV6"),
    "rwkv6, options": Model("RWKV6", {"expand_k": 1, "norm_bias": False, "norm_first": False, "fuse_norm": False}),
    "rwkv6, hybrid": Model("RWKV6", {"num_hidden_layers": 3, "attn": [WINDOWED]}),
    "rwkv7": Model("RWKV7", {"head_dim": 16}),
    "rwkv7, one layer": Model("RWKV7", {"num_hidden_layers": 1, "num_heads": None, "head_dim": 8}),
    "rwkv7, hybrid": Model(
        "RWKV7",
        {
            "head_dim": None,
            "value_dim": [48] * 4,
            "norm_bias": False,
            "norm_first": False,
            "num_hidden_layers": 4,
            "attn": WINDOWED,
        },
    ),
    "delta_net": Model("DeltaNet"),
    "delta_net, options": Model(
        "DeltaNet", {"use_gate": True, "qk_activation": "elu", "qk_norm": "sum", "use_short_conv": False}
    ),
    "delta_net, hybrid": Model(
        "DeltaNet", {"use_beta": False, "expand_v": 2, "num_hidden_layers": 3, "fuse_norm": False, "attn": WINDOWED}
    ),
    "gated_deltanet": Model("GatedDeltaNet", {"head_dim": 16}),
    "gated_deltanet, hybrid": Model(
        "GatedDeltaNet",
        {
            "head_dim": 12,
            "expand_v": 1.5,
            "num_v_heads": 4,
            "allow_neg_eigval": True,
            "output_gate_activation": "sigmoid",
            "num_hidden_layers": 3,
            "attn": WINDOWED,
        },
    ),
    "gated_deltaproduct": Model("GatedDeltaProduct", {"head_dim": 16, "num_householder": 2}),
    "gated_deltaproduct, hybrid": Model(
        "GatedDeltaProduct",
        {
            "head_dim": 12,
            "expand_v": 1,
            "num_householder": 3,
            "use_forget_gate": True,
            "allow_neg_eigval": True,
            "use_output_gate": False,
            "attn": WINDOWED,
        },
    ),
    "kda": Model("KDA", {"head_dim": 16}),
    "kda, hybrid": Model(
        "KDA",
        {
            "head_dim": 12,
            "expand_v": 1.5,
            "num_v_heads": 4,
            "allow_neg_eigval": True,
            "safe_gate": True,
            "lower_bound": -5,
            "attn": WINDOWED,
        },
    ),
    "comba": Model("Comba", {"head_dim": 16}),
    "comba, hybrid": Model(
        "Comba",
        {
            "head_dim": 12,
            "expand_v": 1.5,
            "num_v_heads": 4,
            "use_output_correction": False,
            "use_output_gate": False,
            "attn": WINDOWED,
        },
    ),
    "mamba": Model("Mamba", {"state_size": 8, "intermediate_size": None}),
    "mamba, hybrid": Model(
        "Mamba",
        {
            "state_size": 5,
            "dt_rank": 7,
            "dt_init_scheme": "constant",
            "use_conv_bias": False,
            "use_bias": True,
            "residual_in_fp32": True,
            "rescale_prenorm_residual": True,
            "num_hidden_layers": 3,
            "attn": WINDOWED,
        },
    ),
    "samba": Model("Samba", {"state_size": 8}),
    "samba, options": Model(
        "Samba", {"time_step_rank": 3, "residual_in_fp32": True, "fuse_norm": False, "attn": WINDOWED}
    ),
    "mamba2": Model("Mamba2", {"num_heads": None, "head_dim": 16, "state_size": 8}),
    "mamba2, hybrid": Model(
        "Mamba2",
        {
            "num_heads": 8,
            "head_dim": 8,
            "state_size": 12,
            "n_groups": 2,
            "D_has_hdim": True,
            "norm_before_gate": True,
            "use_bias": True,
            "residual_in_fp32": False,
            "num_hidden_layers": 3,
            "attn": WINDOWED,
        },
    ),
    "linear_attn": Model("LinearAttention"),
    "linear_attn, hybrid": Model(
        "LinearAttention",
        {
            "feature_map": "hedgehog",
            "tie_feature_map_qk": True,
            "norm_feature_map": True,
            "num_heads": 4,
            "num_kv_heads": 2,
            "attn": WINDOWED,
        },
    ),
    "based": Model("Based"),
    "based, hybrid": Model("Based", {"feature_dim": 6, "num_hidden_layers": 4, "num_heads": 4, "num_kv_heads": 2}),
    "rebased": Model("ReBased"),
    "rebased, hybrid": Model("ReBased", {"feature_dim": 8, "use_gamma": False, "fuse_norm": False, "attn": WINDOWED}),
    "transformer": Model("Transformer"),
    "transformer, options": Model(
        "Transformer",
        {
            "num_kv_heads": 1,
            "window_size": 9,
            "qk_norm": True,
            "qk_norm_eps": 1e-3,
            "qkv_bias": True,
            "o_bias": True,
            "head_dim": 20,
            "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
        },
    ),
    "transformer, hybrid": Model(
        "Transformer",
        {
            "num_hidden_layers": 5,
            "window_size": 9,
            "rope_scaling": {"rope_type": "linear", "factor": 2.0},
            "attn": [
                {"layers": [0], "mixer": "Mamba2", "num_heads": 4, "head_dim": 16, "state_size": 8},
                {"layers": [1], "mixer": "GatedDeltaNet", "num_heads": 2, "head_dim": 12, "expand_v": 1},
                {"layers": [3], "mixer": "HGRN2Attention", "num_heads": 2},
                {"layers": [4], "num_heads": 2, "head_dim": 12, "qk_norm": True, "norm_eps": 1e-4},
            ],
        },
    ),
    "bitnet": Model("BitNet"),
    "bitnet, hybrid": Model(
        "BitNet",
        {
            "num_kv_heads": 1,
            "window_size": 9,
            "use_bitlinear_mlp": True,
            "bitlinear_norm_eps": 1e-3,
            "fuse_norm": False,
            "attn": WINDOWED,
        },
    ),
    "mla": Model(
        "MLA",
        {"q_lora_rank": 12, "qk_rope_head_dim": 8, "kv_lora_rank": 16, "v_head_dim": 12, "qk_nope_head_dim": 8}
        | {"qk_head_dim": None},
    ),
    "mla, hybrid": Model(
        "MLA",
        {
            "q_lora_rank": None,
            "qk_rope_head_dim": 8,
            "kv_lora_rank": 16,
            "v_head_dim": 12,
            "qk_nope_head_dim": 8,
            "qk_head_dim": 16,
            "window_size": 11,
            "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
            "num_hidden_layers": 3,
            "attn": WINDOWED,
        },
    ),
}
every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
#: For what the shared base does by itself: every kind of block, of shared value and of hybrid is among these.
KINDS = [
    "gla, options",
    "gla, hybrid",
    "hgrn, hybrid",
    "based, hybrid",
    "rwkv6, options",
    "rwkv7, hybrid",
    "mamba2, hybrid",
    "samba, options",
    "transformer, options",
    "transformer, hybrid",
]
every_kind = pytest.mark.parametrize("model", [MODELS[name] for name in KINDS], ids=KINDS)
#: Layers of 160 roundings each, forward and backward.
TIGHT = agreement(torch.float32, 400)


def tokens(batch: int, steps: int) -> torch.Tensor:
    return torch.randint(3, 64, (batch, steps), generator=torch.Generator().manual_seed(steps))


def generate(model: FLAForCausalLM, ids: torch.Tensor, **options: Any) -> torch.Tensor:
    return model.generate(ids, **{"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, **options})


def markov_text(rows: int, steps: int, symbols: int = 8) -> torch.Tensor:
    """Tokens of which each follows from the two before it, up to a coin that falls on one side four times in five."""
    generator = torch.Generator().manual_seed(0)
    successors = torch.randint(3, 3 + symbols, (64, 64, 2), generator=generator)
    text = torch.randint(3, 3 + symbols, (rows, steps), generator=generator)
    coins = (torch.rand(rows, steps, generator=generator) < 0.2).long()
    for t in range(2, steps):
        text[:, t] = successors[text[:, t - 2], text[:, t - 1], coins[:, t]]
    return text


def gradients(model: FLAForCausalLM, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    parameters = dict(model.named_parameters())
    return dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values()))))
