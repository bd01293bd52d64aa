"""Releases of RWKV-6 and RWKV-7 as ours, against their definition step by step, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

import fla.models
from fla.models import convert
from fla.utils.numerics import agreement, assert_close

Weights = Mapping[str, torch.Tensor]
SMALL = {"vocab_size": 40, "num_hidden_layers": 3, "intermediate_size": 48, "gate_low_rank_dim": 6}
TIGHT = agreement(torch.float32, 80)


def written_out(weights: Weights, ids: torch.Tensor) -> torch.Tensor:
    """Logits ``[T, vocabulary]`` of one sequence of tokens, in float64."""
    w = {name: tensor.double() for name, tensor in weights.items()}
    x = norm(w, "blocks.0.ln0", w["emb.weight"][ids])
    layers = 1 + max(int(name.split(".")[1]) for name in w if name.startswith("blocks."))
    v_first = None
    for layer in range(layers):
        block = {name.removeprefix(f"blocks.{layer}."): w[name] for name in w if name.startswith(f"blocks.{layer}.")}
        normed = norm(block, "ln1", x)
        if "att.r_k" in block:
            mixed, v_first = time_mixing_7(block, normed, v_first)
        else:
            mixed = time_mixing_6(block, normed)
        x = x + mixed
        x = x + channel_mixing(block, norm(block, "ln2", x))
    return norm(w, "ln_out", x) @ w["head.weight"].T


def norm(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)


def norm_of_heads(w: Weights, x: torch.Tensor) -> torch.Tensor:
    """``[T, H, N]`` -> ``[T, H * N]``."""
    return F.group_norm(x.flatten(1), x.shape[1], w["att.ln_x.weight"], w["att.ln_x.bias"], 64e-5)


def before(x: torch.Tensor) -> torch.Tensor:
    """What the token before has more, with zeros before the first."""
    return F.pad(x, (0, 0, 1, 0))[:-1] - x


def channel_mixing(w: Weights, x: torch.Tensor) -> torch.Tensor:
    shares = "x_k" if "ffn.x_k" in w else "time_maa_k"
    hidden = torch.relu((x + before(x) * w[f"ffn.{shares}"][0]) @ w["ffn.key.weight"].T).square()
    value = hidden @ w["ffn.value.weight"].T
    if "ffn.time_maa_r" not in w:
        return value
    return torch.sigmoid((x + before(x) * w["ffn.time_maa_r"][0]) @ w["ffn.receptance.weight"].T) * value


def time_mixing_6(w: Weights, x: torch.Tensor) -> torch.Tensor:
    delta, mixed = before(x), {}
    low = torch.tanh((x + delta * w["att.time_maa_x"][0]) @ w["att.time_maa_w1"]).chunk(5, -1)
    for part, down, up in zip("wkvrg", low, w["att.time_maa_w2"]):
        mixed[part] = x + delta * (w[f"att.time_maa_{part}"][0] + down @ up)
    decay = w["att.time_decay"][0] + torch.tanh(mixed["w"] @ w["att.time_decay_w1"]) @ w["att.time_decay_w2"]
    u = w["att.time_faaaa"]
    r, k, v = (
        (mixed[part] @ w[f"att.{name}.weight"].T).unflatten(-1, u.shape)
        for part, name in (("r", "receptance"), ("k", "key"), ("v", "value"))
    )
    kept = torch.exp(-torch.exp(decay)).unflatten(-1, u.shape)
    state, outputs = x.new_zeros(*u.shape, u.shape[1]), []
    for t in range(x.shape[0]):
        new = k[t, :, :, None] * v[t, :, None, :]
        outputs.append(torch.einsum("hk,hkv->hv", r[t], state + u[:, :, None] * new))
        state = kept[t, :, :, None] * state + new
    gate = F.silu(mixed["g"] @ w["att.gate.weight"].T)
    return (norm_of_heads(w, torch.stack(outputs)) * gate) @ w["att.output.weight"].T


def time_mixing_7(w: Weights, x: torch.Tensor, v_first: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    delta, heads = before(x), w["att.r_k"].shape
    xr, xw, xk, xv, xa, xg = (x + delta * w[f"att.x_{part}"][0] for part in "rwkvag")
    r, k, v = (y @ w[f"att.{name}.weight"].T for y, name in ((xr, "receptance"), (xk, "key"), (xv, "value")))
    kept = torch.exp(
        -torch.exp(-F.softplus(-(w["att.w0"][0] + torch.tanh(xw @ w["att.w1"]) @ w["att.w2"])) - 0.5)
    ).unflatten(-1, heads)
    if v_first is None:
        v_first = v
    else:
        v = v + (v_first - v) * torch.sigmoid(w["att.v0"][0] + xv @ w["att.v1"] @ w["att.v2"])
    a = torch.sigmoid(w["att.a0"][0] + xa @ w["att.a1"] @ w["att.a2"])
    gate = torch.sigmoid(xg @ w["att.g1"]) @ w["att.g2"]
    unit = F.normalize((k * w["att.k_k"][0]).unflatten(-1, heads), dim=-1)
    k = k * (1 + (a - 1) * w["att.k_a"][0])
    r, k, v_heads, a = (y.unflatten(-1, heads) for y in (r, k, v, a))
    state, outputs = x.new_zeros(heads[0], heads[1], heads[1]), []  # values by keys
    for t in range(x.shape[0]):
        removed = torch.einsum("hvk,hk->hv", state, -unit[t])[..., None] * (unit[t] * a[t])[:, None]
        state = state * kept[t][:, None] + removed + v_heads[t][..., None] * k[t][:, None]
        outputs.append(torch.einsum("hvk,hk->hv", state, r[t]))
    o = norm_of_heads(w, torch.stack(outputs)).unflatten(-1, heads)
    o = o + (r * k * w["att.r_k"]).sum(-1, keepdim=True) * v_heads
    return (o.flatten(1) * gate) @ w["att.output.weight"].T, v_first


class Kind(NamedTuple):
    """A class stem, and the options of a small model that could be a release."""

    stem: str
    options: dict[str, Any]

    def model(self, **options: Any) -> Any:
        torch.manual_seed(0)
        config = getattr(fla.models, f"{self.stem}Config")(**{**SMALL, **self.options, **options})
        model = getattr(fla.models, f"{self.stem}ForCausalLM")(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                # Apart from the norms, so that no share, bias or bonus is what another one is.
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
        return model

    def from_release(self, weights: Weights) -> Any:
        return getattr(convert, f"{self.stem.lower()}_from_release")(weights).eval()

    def to_release(self, model: Any) -> dict[str, torch.Tensor]:
        return getattr(convert, f"{self.stem.lower()}_to_release")(model)


KINDS = {
    "rwkv6": Kind(
        "RWKV6",
        {"hidden_size": 32, "num_heads": 4, "expand_k": 1.0, "proj_low_rank_dim": 4, "output_norm_eps": 64e-5},
    ),
    "rwkv7": Kind("RWKV7", {"hidden_size": 128, "decay_low_rank_dim": 5, "a_low_rank_dim": 4, "v_low_rank_dim": 3}),
    "rwkv7, one layer": Kind("RWKV7", {"hidden_size": 64, "num_hidden_layers": 1}),
}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def tokens(steps: int) -> torch.Tensor:
    return torch.randint(40, (1, steps), generator=torch.Generator().manual_seed(steps))


@every_kind
def test_a_release_is_its_definition(kind: Kind) -> None:
    model, ids = kind.model(), tokens(70)
    release = kind.to_release(model)
    # Norms of the output with an epsilon that counts.
    for name in release:
        if name.endswith("att.value.weight"):
            release[name] = release[name] / 30
    ours = kind.from_release(release)
    with torch.no_grad():
        assert_close("logits", written_out(release, ids[0]), ours(ids).logits[0], TIGHT)


@every_kind
def test_a_release_goes_there_and_back(kind: Kind) -> None:
    model, ids = kind.model(), tokens(20)
    release = kind.to_release(model)
    ours = kind.from_release(release)
    assert {name: list(x.shape) for name, x in kind.to_release(ours).items()} == {
        name: list(x.shape) for name, x in release.items()
    }
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, ours.state_dict()[name]), name
    # Weights lie elsewhere in memory, and some instructions add in an order that follows the alignment.
    assert_close("logits", model(ids).logits, ours(ids).logits, TIGHT)
    assert ours.config.eos_token_id == 0
    ours.model.norm.weight.data.zero_()
    assert release["ln_out.weight"].all()


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@every_kind
def test_a_file_of_a_release_becomes_a_checkpoint(kind: Kind, suffix: str, tmp_path: Path) -> None:
    model, file = kind.model().bfloat16(), tmp_path / f"release.{suffix}"
    release = kind.to_release(model)
    if "blocks.0.att.r_k" in release:
        # Some releases hold what the first layer does not have.
        release |= {f"blocks.0.att.v{n}": torch.ones(3) for n in range(3)}
    torch.save(release, file) if suffix == "pth" else save_file(release, file)
    said = convert.convert_checkpoint(file, tmp_path / "ours")
    assert said == f"RWKV's {file} -> {model.config.model_type} {tmp_path / 'ours'}"
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    assert loaded.dtype == torch.bfloat16
    assert torch.equal(model(tokens(9)).logits, loaded(tokens(9)).logits)
    convert.convert_checkpoint(tmp_path / "ours", tmp_path / "back")
    again = torch.load(tmp_path / "back" / f"{model.config.model_type}.pth", weights_only=True)
    assert all(torch.equal(weight, release[name]) for name, weight in again.items())


def drop(name: str) -> Callable[[dict[str, torch.Tensor]], Any]:
    return lambda release: release.pop(name)


def add(name: str, *shape: int) -> Callable[[dict[str, torch.Tensor]], Any]:
    return lambda release: release.update({name: torch.ones(shape)})


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("rwkv6", drop("blocks.1.att.time_decay"), "there is no blocks.1.att.time_decay"),
        ("rwkv6", drop("blocks.0.att.time_maa_w1"), "weights are none of RWKV-6 or RWKV-7"),
        ("rwkv6", add("blocks.2.att.time_state", 4, 8, 8), "there is no place for blocks.2.att.time_state"),
        ("rwkv7", drop("head.weight"), "there is no head.weight"),
        ("rwkv7", add("blocks.1.ffn.s_emb.weight", 3), "there is no place for blocks.1.ffn.s_emb.weight"),
        ("rwkv7", add("blocks.0.att.r_k", 4, 32), "head_dim: releases of RWKV-7 have 64, got 32"),
        ("rwkv7", add("blocks.1.att.v2", 7, 128), r"expected shape \[128, 3\] for .*v_lora.*, got \[128, 7\]"),
    ],
)
def test_a_release_that_ours_cannot_be_is_refused(
    kind: str, change: Callable[[dict[str, torch.Tensor]], Any], message: str, tmp_path: Path
) -> None:
    release = KINDS[kind].to_release(KINDS[kind].model())
    change(release)
    torch.save(release, tmp_path / "release.pth")
    with pytest.raises(ValueError, match=message):
        convert.convert_checkpoint(tmp_path / "release.pth", tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("rwkv6", {"output_norm_eps": None}, "output_norm_eps: releases of RWKV have 0.00064 only, got 1e-05"),
        ("rwkv6", {"expand_k": 0.5}, "expand_v: releases of RWKV have 0.5 only, got 1.0"),
        ("rwkv6", {"norm_bias": False}, "norm_bias: .* True only"),
        ("rwkv7", {"attn": {"layers": [1], "num_heads": 2}}, "attn: releases of RWKV have None only"),
        ("rwkv7", {"norm_eps": 1e-6}, "norm_eps: releases of RWKV have 1e-05 only"),
        ("rwkv7", {"head_dim": 32}, "head_dim: releases of RWKV-7 have 64, got 32"),
        ("rwkv7", {"value_dim": 256}, "value_dim: releases of RWKV-7 have hidden_size=128, got 256"),
    ],
)
def test_a_model_that_no_release_is_is_refused(kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KINDS[kind].to_release(KINDS[kind].model(**options))
