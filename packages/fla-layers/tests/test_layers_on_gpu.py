"""Every layer lived in on a GPU in bfloat16: filled, decoded step by step, its rows moved about, and trained."""

from __future__ import annotations

import pytest
import torch

from fla.layers import StateCache
from fla.utils.numerics import check_error_budget
from layer_table import HIDDEN, build, every_layer, every_mixer, inputs, padded

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")
#: Shorter and longer than a chunk.
PROMPTS = (5, 150)
BATCHES = (1, 3, 64)
NEW = 6


@every_layer
@pytest.mark.parametrize("steps", PROMPTS)
@pytest.mark.parametrize("batch", BATCHES)
@torch.no_grad()
def test_decoding_goes_on_as_the_full_forward_does(name: str, batch: int, steps: int) -> None:
    layer, exact = build(name, torch.bfloat16), build(name)
    exact.load_state_dict(layer.state_dict())
    exact.float()
    x = inputs(batch, steps + NEW).to(torch.bfloat16)
    mask = padded([1 + (row * 37 + steps - 1) % steps + NEW for row in range(batch)], steps + NEW, "left")
    cache, outputs = StateCache(), []
    for end in range(steps, steps + NEW + 1):
        start = 0 if end == steps else end - 1
        outputs.append(layer(x[:, start:end], mask[:, :end], cache, use_cache=True)[0])
        if end == steps + 2:
            # Beams: each row goes on from another one, half of them twice.
            rows = torch.arange(batch).flip(0) // 2
            for state in cache:
                state.reorder_cache(rows)
            x, mask, outputs = x[rows], mask[rows], [o[rows] for o in outputs]
    truth, baseline = exact(x.float(), mask)[0], layer(x, mask)[0]
    check_error_budget("output", truth, baseline, torch.cat(outputs, 1), torch.bfloat16)


@every_mixer
@pytest.mark.parametrize("autocast", [True, False], ids=["autocast", "pure"])
def test_it_learns_in_bfloat16(name: str, autocast: bool) -> None:
    layer = build(name, torch.float32 if autocast else torch.bfloat16).train()
    x, target = inputs(4, 80).float(), inputs(4, 81).float()[:, 1:].roll(1, 1).cumsum(1) / 10
    optimizer, losses = torch.optim.AdamW(layer.parameters(), lr=1e-2), []
    for _ in range(20):
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
            o, *_ = layer(x if autocast else x.bfloat16())
        loss = (o.float() - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-3:]) < losses[0], losses
    assert target.shape[-1] == HIDDEN
