"""Other programs' models as ours and back, and what transformers keeps of its own."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
import transformers
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.models.mamba2 import modeling_mamba2

import fla.models
from fla.models import convert
from fla.utils.numerics import agreement, assert_close

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 64, "state_size": 12, "initializer_range": 0.2}
TIGHT = agreement(torch.float32, 80)


class Kind(NamedTuple):
    """A class stem that both have, the options of a small model of transformers' and the functions that convert."""

    stem: str
    options: dict[str, Any]

    def theirs(self, **options: Any) -> Any:
        torch.manual_seed(0)
        config = getattr(transformers, f"{self.stem}Config")(**{**SMALL, **self.options, **options})
        return getattr(transformers, f"{self.stem}ForCausalLM")(config).eval()

    def function(self, name: str) -> Any:
        return getattr(convert, f"{self.stem.lower()}_{name}")


KINDS = {
    "mamba": Kind("Mamba", {}),
    "mamba, options": Kind(
        "Mamba", {"time_step_rank": 5, "use_bias": True, "use_conv_bias": False, "residual_in_fp32": False, "expand": 3}
    ),
    "mamba2": Kind("Mamba2", {"num_heads": 4, "head_dim": 16, "n_groups": 1}),
    "mamba2, biases": Kind(
        "Mamba2", {"num_heads": 8, "head_dim": 8, "n_groups": 1, "use_bias": True, "time_step_limit": (0.01, 0.05)}
    ),
    "mamba2, groups": Kind("Mamba2", {"num_heads": 8, "head_dim": 8, "n_groups": 2}),
}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def norm_of_each_group(self: Any, x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    gated = (x * F.silu(gate)).unflatten(-1, (self.groups, -1))
    return self.weight * F.rms_norm(gated, gated.shape[-1:], eps=self.variance_epsilon).flatten(-2)


@pytest.fixture(autouse=True)
def transformers_normalises_each_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its earlier releases take all channels together on the CPU; mamba-ssm never did."""
    if "group_size" in inspect.signature(modeling_mamba2.MambaRMSNormGated).parameters:
        return
    start = modeling_mamba2.Mamba2Mixer.__init__

    def start_with_groups(self: Any, *args: Any, **options: Any) -> None:
        start(self, *args, **options)
        self.norm.groups = self.n_groups

    monkeypatch.setattr(modeling_mamba2.Mamba2Mixer, "__init__", start_with_groups)
    monkeypatch.setattr(modeling_mamba2.MambaRMSNormGated, "forward", norm_of_each_group)


def tokens(batch: int, steps: int) -> torch.Tensor:
    return torch.randint(3, 64, (batch, steps), generator=torch.Generator().manual_seed(steps))


@every_kind
@pytest.mark.parametrize("tied", [False, True])
def test_transformers_model_and_ours_have_the_same_logits(kind: Kind, tied: bool, tmp_path: Path) -> None:
    theirs, ids = kind.theirs(tie_word_embeddings=tied), tokens(2, 70)
    ours = kind.function("from_transformers")(theirs).eval()
    assert isinstance(ours, getattr(fla.models, f"{kind.stem}ForCausalLM"))
    assert (ours.lm_head.weight is ours.base_model.embeddings.weight) is tied
    with torch.no_grad():
        expected = theirs(ids).logits
        assert_close("logits", expected, ours(ids).logits, TIGHT)
        back = kind.function("to_transformers")(ours).eval()
        assert torch.equal(expected, back(ids).logits)
    assert back.config.to_diff_dict() == theirs.config.to_diff_dict()
    ours.save_pretrained(tmp_path)
    assert_close("saved", expected, type(ours).from_pretrained(tmp_path)(ids).logits, TIGHT)


@every_kind
def test_conversion_keeps_the_dtype(kind: Kind) -> None:
    ours = kind.function("from_transformers")(kind.theirs().double())
    assert {p.dtype for p in ours.parameters()} == {torch.float64}
    assert {p.dtype for p in kind.function("to_transformers")(ours).parameters()} == {torch.float64}


@every_kind
def test_auto_classes_load_what_they_did_before(kind: Kind, tmp_path: Path) -> None:
    theirs, ids = kind.theirs(), tokens(2, 10)
    theirs.save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is type(theirs.config)
    assert AutoConfig.for_model(theirs.config.model_type).__module__.startswith("transformers.")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert type(loaded) is type(theirs)
    assert torch.equal(theirs(ids).logits, loaded(ids).logits)
    base = AutoModel.from_pretrained(tmp_path).eval()
    assert type(base) is type(theirs.backbone)
    assert torch.equal(theirs.backbone(ids).last_hidden_state, base(ids).last_hidden_state)


@pytest.mark.parametrize("tied", [False, True])
def test_mamba_of_state_spaces_goes_there_and_back(tied: bool) -> None:
    ours = convert.mamba_from_transformers(KINDS["mamba"].theirs(tie_word_embeddings=tied)).eval()
    config, weights = convert.mamba_to_state_spaces(ours)
    assert (config["d_model"], config["n_layer"], config["tie_embeddings"]) == (32, 2, tied)
    assert config["ssm_cfg"] | {"layer": "Mamba1", "d_state": 12, "d_conv": 4, "dt_rank": 2} == config["ssm_cfg"]
    if tied:
        del weights["lm_head.weight"]
    # The first releases do not name their layer.
    config["ssm_cfg"] = {"d_state": 12}
    back, ids = convert.mamba_from_state_spaces(config, weights).eval(), tokens(2, 20)
    assert torch.equal(ours(ids).logits, back(ids).logits)
    assert (back.lm_head.weight is back.backbone.embeddings.weight) is tied


def test_mamba_that_the_others_do_not_have_is_refused() -> None:
    small = {"hidden_size": 32, "num_hidden_layers": 1, "vocab_size": 8}
    model = fla.models.MambaForCausalLM(fla.models.MambaConfig(**small, intermediate_size=40))
    for form, whose in (("transformers", "transformers'"), ("state_spaces", "state-spaces'")):
        with pytest.raises(ValueError, match=f"intermediate_size: {whose} Mamba has 64 only, got 40"):
            getattr(convert, f"mamba_to_{form}")(model)
    with pytest.raises(ValueError, match="ssm_cfg: expected layer Mamba1, got Mamba2"):
        convert.mamba_from_state_spaces({"ssm_cfg": {"layer": "Mamba2"}}, {})


@pytest.mark.parametrize(("tied", "groups"), [(False, 1), (True, 2)])
def test_mamba2_of_state_spaces_goes_there_and_back(tied: bool, groups: int) -> None:
    theirs = KINDS["mamba2"].theirs(tie_word_embeddings=tied, n_groups=groups)
    ours = convert.mamba2_from_transformers(theirs).eval()
    config, weights = convert.mamba2_to_state_spaces(ours)
    assert (config["d_model"], config["n_layer"], config["tie_embeddings"]) == (32, 2, tied)
    assert config["ssm_cfg"] | {"layer": "Mamba2", "d_state": 12, "headdim": 16, "ngroups": groups} == config["ssm_cfg"]
    assert {name for name in weights if "layers" not in name} == {
        "backbone.embedding.weight",
        "backbone.norm_f.weight",
        "lm_head.weight",
    }
    if tied:
        del weights["lm_head.weight"]
    back, ids = convert.mamba2_from_state_spaces(config, weights).eval(), tokens(2, 20)
    assert torch.equal(ours(ids).logits, back(ids).logits)
    assert (back.lm_head.weight is back.backbone.embeddings.weight) is tied


def test_mamba2_of_state_spaces_has_the_defaults_of_mamba_ssm() -> None:
    ours = convert.mamba2_from_transformers(KINDS["mamba2"].theirs(state_size=128, tie_word_embeddings=True))
    config, weights = convert.mamba2_to_state_spaces(ours)
    short = {key: config[key] for key in ("d_model", "n_layer", "vocab_size")}
    bare = convert.mamba2_from_state_spaces({**short, "ssm_cfg": {"layer": "Mamba2", "headdim": 16}}, weights)
    ids = tokens(1, 10)
    assert torch.equal(ours(ids).logits, bare(ids).logits)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rmsnorm": False}, "rmsnorm: transformers' Mamba2 has True only, got False"),
        ({"norm_before_gate": True}, "norm_before_gate: .* got True"),
        ({"D_has_hdim": True}, "D_has_hdim: .* got True"),
        ({"attn": {"layers": [0], "num_heads": 2}}, "attn: .* None only"),
    ],
)
def test_mamba2_that_transformers_does_not_have_is_refused(options: dict[str, Any], message: str) -> None:
    small = {"hidden_size": 32, "num_hidden_layers": 1, "vocab_size": 8, "head_dim": 16, "state_size": 4}
    model = fla.models.Mamba2ForCausalLM(fla.models.Mamba2Config(**small, **options))
    with pytest.raises(ValueError, match=message):
        convert.mamba2_to_transformers(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ssm_cfg": {"layer": "Mamba1"}}, "ssm_cfg: expected layer Mamba2, got Mamba1"),
        ({"ssm_cfg": {}}, "ssm_cfg: expected layer Mamba2, got Mamba1"),
        ({"ssm_cfg": {"layer": "Mamba2", "d_ssm": 8}}, "ssm_cfg: expected .*, got d_ssm as well"),
        ({"d_intermediate": 64}, "d_intermediate: expected 0, got 64"),
        ({"rms_norm": False}, "rms_norm: expected True, got False"),
        ({"attn_layer_idx": [1]}, r"attn_layer_idx: expected \[\], got \[1\]"),
    ],
)
def test_a_release_that_we_do_not_have_is_refused(change: dict[str, Any], message: str) -> None:
    config = {"d_model": 32, "n_layer": 2, "ssm_cfg": {"layer": "Mamba2"}, **change}
    with pytest.raises(ValueError, match=message):
        convert.mamba2_from_state_spaces(config, {})
