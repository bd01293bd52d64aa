"""Every model lived in on a GPU: generation in batches of all sizes in bfloat16, and training in bfloat16."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from fla.models.base.modeling import FLAForCausalLM
from fla.utils.numerics import check_error_budget
from model_table import MODELS, Model, every_model, generate, markov_text

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")
#: Shorter and longer than a chunk.
PROMPTS = (5, 150)
BATCHES = (1, 3, 64)
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"do_sample": True, "top_k": 0, "temperature": 0.7},
    "beams": {"num_beams": 3},
}


def padded_prompts(batch: int, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts of all lengths up to ``steps``, padded on the left, and their mask."""
    ids = torch.randint(3, 64, (batch, steps), generator=torch.Generator().manual_seed(batch))
    lengths = 1 + (torch.arange(batch) * 37 + steps - 1) % steps
    mask = (torch.arange(steps).flip(0) < lengths[:, None]).long()
    return ids * mask, mask


def rounded(model: Model, dtype: torch.dtype) -> tuple[FLAForCausalLM, FLAForCausalLM]:
    """The model in ``dtype``, and one of the same values that computes in float32."""
    lm = model.build().to(dtype)
    exact = model.build()
    exact.load_state_dict(lm.state_dict())
    return lm, exact.float()


@every_model
@pytest.mark.parametrize("steps", PROMPTS)
@pytest.mark.parametrize("batch", BATCHES)
@torch.no_grad()
def test_what_it_generates_is_what_the_full_forward_gives(model: Model, batch: int, steps: int) -> None:
    lm, exact = rounded(model, torch.bfloat16)
    ids, mask = padded_prompts(batch, steps)
    for way, options in WAYS.items():
        torch.manual_seed(0)
        asked = {**options, "attention_mask": mask, "return_dict_in_generate": True, "output_logits": True}
        sequences = generate(lm, ids, **asked).sequences
        assert sequences.shape == (batch, steps + 6)
        assert torch.equal(sequences[:, :steps], ids)
        if way == "beams":
            continue
        torch.manual_seed(0)
        logits = torch.stack(generate(lm, ids, **asked).logits, 1)
        full_mask = torch.cat([mask, torch.ones_like(mask[:, :1]).expand(-1, 5)], 1)
        truth, baseline = (m(sequences[:, :-1], full_mask).logits[:, steps - 1 :] for m in (exact, lm))
        check_error_budget(way, truth, baseline, logits, torch.bfloat16)


@every_model
@pytest.mark.parametrize("steps", PROMPTS)
@torch.no_grad()
def test_a_batch_of_64_generates_what_each_row_does_alone(model: Model, steps: int) -> None:
    lm = model.build()
    ids, mask = padded_prompts(64, steps)
    for options in ({}, WAYS["beams"]):
        together = generate(lm, ids, attention_mask=mask, **options)
        for row in (0, 1, 31, 63):
            real = mask[row].bool()
            alone = generate(lm, ids[row : row + 1, real], **options)
            assert torch.equal(alone[0, real.sum() :], together[row, steps:])


@every_model
def test_it_learns_in_bfloat16(model: Model) -> None:
    batches = markov_text(8 * 20, 80).split(8)

    def losses(dtype: torch.dtype, autocast: bool) -> list[float]:
        lm = model.start(initializer_range=0.02).train().to(dtype)
        optimizer = torch.optim.AdamW(lm.parameters(), lr=1e-2)
        seen = []
        for ids in batches:
            optimizer.zero_grad()
            with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
                loss = lm(ids, labels=ids).loss
            loss.backward()
            optimizer.step()
            seen.append(loss.item())
        return seen

    exact = losses(torch.float32, False)
    for dtype, autocast in ((torch.float32, True), (torch.bfloat16, False)):
        got = losses(dtype, autocast)
        # At least half of what float32 learns in as many steps.
        assert sum(got[-3:]) / 3 < exact[0] - (exact[0] - sum(exact[-3:]) / 3) / 2, f"{got} where float32 has {exact}"


def test_packed_sequences_wait_for_the_device_once_however_many_layers_attend() -> None:
    lm = MODELS["transformer, options"].build(num_hidden_layers=6).bfloat16().train()
    ids, ends = torch.randint(3, 64, (1, 300)), torch.tensor([0, 100, 101, 300])
    lm(ids, labels=ids, cu_seqlens=ends).loss.backward()
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as waits:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            lm(ids, labels=ids, cu_seqlens=ends).loss.backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    where = [f"{one.filename}:{one.lineno}" for one in waits if "called a synchronizing" in str(one.message)]
    assert len(where) <= 1, where
