"""Initial values of parameters: the same in a new model, from the meta device, and where a file lacks them."""

from __future__ import annotations

import math
from operator import attrgetter
from pathlib import Path

import pytest
import torch

import fla.models
from fla.models.base.modeling import FLAForCausalLM
from model_table import MODELS, Model, tokens

SEEDS = 3
ALL = {**MODELS, "bitnet, packed": Model("BitNet", {"packed_weights": True, "use_bitlinear_mlp": True})}
every_model = pytest.mark.parametrize("model", ALL.values(), ids=ALL)
Values = dict[str, torch.Tensor]


def values_of(lm: FLAForCausalLM) -> Values:
    return {name: x.detach() for name, x in (*lm.named_parameters(), *lm.named_buffers())}


def new(model: Model, seed: int, **options: object) -> FLAForCausalLM:
    torch.manual_seed(seed)
    config = model._replace(options={**model.options, **options}).config()
    return lm_class(model)(config)


def lm_class(model: Model) -> type[FLAForCausalLM]:
    return getattr(fla.models, f"{model.stem}ForCausalLM")


def from_meta(model: Model, seed: int) -> FLAForCausalLM:
    with torch.device("meta"):
        lm = lm_class(model)(model.config())
    lm.to_empty(device=torch.get_default_device())
    for x in values_of(lm).values():
        x.fill_(math.nan if x.is_floating_point() else 255)
    torch.manual_seed(seed)
    lm.init_weights()
    return lm


def check_start(name: str, expected: list[torch.Tensor], got: list[torch.Tensor]) -> None:
    """Constants are equal; random values are of one distribution (Kolmogorov and Smirnov, one chance in 10^6)."""
    if all(torch.equal(expected[0], x) for x in expected):
        assert all(torch.equal(expected[0], x) for x in got), name
        return
    first, second = (torch.cat([x.flatten().double() for x in xs]).sort().values for xs in (expected, got))
    assert second.isfinite().all(), name
    steps = torch.cat([first, second])
    shares = [torch.searchsorted(x, steps, right=True).double() / x.numel() for x in (first, second)]
    limit = math.sqrt(math.log(2e6) / 2 * (1 / first.numel() + 1 / second.numel()))
    assert (shares[0] - shares[1]).abs().max() <= limit, name
    # Beyond a distribution: what is random in one is random in the other, and no two draws are the same.
    assert len({tuple(x.flatten().tolist()) for x in got}) == len(got), name


@every_model
def test_from_the_meta_device_everything_starts_as_in_a_new_model(model: Model) -> None:
    built = [new(model, seed) for seed in range(SEEDS)]
    started = [from_meta(model, SEEDS + seed) for seed in range(SEEDS)]
    expected, got = ([values_of(lm) for lm in lms] for lms in (built, started))
    for name in expected[0]:
        check_start(name, [values[name] for values in expected], [values[name] for values in got])
    # Tables that are no parameters and no buffers.
    started[0].load_state_dict(built[0].state_dict())
    ids = tokens(2, 10)
    assert torch.equal(built[0].eval()(ids).logits, started[0].eval()(ids).logits)


@every_model
def test_layers_that_a_checkpoint_lacks_start_as_in_a_new_model(model: Model, tmp_path: Path) -> None:
    shallow = new(model, 0)
    shallow.save_pretrained(tmp_path)
    layers = shallow.config.num_hidden_layers + 2
    options = {"num_hidden_layers": layers} | ({"value_dim": [48] * layers} if "value_dim" in model.options else {})
    expected = [values_of(new(model, seed, **options)) for seed in range(SEEDS)]
    config = model._replace(options={**model.options, **options}).config()
    deep = lm_class(model).from_pretrained(tmp_path, config=config, ignore_mismatched_sizes=True)
    got, old = values_of(deep), values_of(shallow)
    for name in expected[0]:
        if name in old and old[name].shape == got[name].shape:
            assert torch.equal(old[name], got[name]), name
        else:
            check_start(name, [values[name] for values in expected], [got[name]])


@every_model
def test_what_a_layer_starts_from_follows_its_depth(model: Model) -> None:
    layers = model.config().num_hidden_layers + 3
    lm = new(
        model, 0, num_hidden_layers=layers, **({"value_dim": [48] * layers} if "value_dim" in model.options else {})
    )
    said: dict[str, list[torch.Tensor]] = {}
    # Parents after their children.
    for path, module in sorted(lm.named_modules(), key=lambda item: -len(item[0])):
        if hasattr(module, "initial_values"):
            drawn = [module.initial_values(layers) for _ in range(SEEDS)]
            said |= {f"{path}.{name}".lstrip("."): [values[name] for values in drawn] for name in drawn[0]}
    for name, values in said.items():
        check_start(name, values, [attrgetter(name)(lm).detach()])


@pytest.mark.parametrize("layers", [1, 2, 6])
def test_the_channel_mixing_of_rwkv6_looks_back_less_in_higher_layers(layers: int) -> None:
    lm = new(MODELS["rwkv6"], 0, num_hidden_layers=layers)
    channel = torch.arange(32) / 32
    for index, block in enumerate(lm.model.layers):
        share = 1 - channel ** (1 - index / layers)
        assert torch.allclose(block.ffn.key.mu, share)
        assert torch.allclose(block.ffn.receptance.mu, share)
