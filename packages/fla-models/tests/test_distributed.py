"""Two processes without a GPU: sharded parameters and tensor parallelism give the gradients of one process."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM

import fla.models
from fla.models.base.modeling import FLAForCausalLM
from fla.utils.numerics import assert_close
from fla.utils.testing.ranks import run_ranks

# Its processes have no GPU.
pytestmark = pytest.mark.own_device
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "gla": ("GLA", {"attn": {"layers": [1], "num_heads": 4, "num_kv_heads": 2}, "tie_word_embeddings": True}),
    "transformer": ("Transformer", {"num_kv_heads": 2, "qk_norm": True, "fuse_linear_cross_entropy": True}),
}
#: With initial values of their own: of a layer by its depth, of a matrix as a whole, of the model.
FROM_META: dict[str, dict[str, Any]] = {"RWKV7": {"num_heads": None, "head_dim": 16}, "HGRN2": {}}
WORLD = 2


def build(stem: str, options: dict[str, Any], seed: int = 0) -> FLAForCausalLM:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_heads": 4, "vocab_size": 64, "intermediate_size": 48}
    config = getattr(fla.models, f"{stem}Config")(**{**sizes, **options})
    return getattr(fla.models, f"{stem}ForCausalLM")(config).train()


def check(what: str, alone: FLAForCausalLM, spread: FLAForCausalLM, mine: torch.Tensor, ids: torch.Tensor) -> None:
    alone(ids, labels=ids).loss.backward()
    spread(mine, labels=mine).loss.backward()
    for (name, expected), parameter in zip(alone.named_parameters(), spread.parameters()):
        assert_close(f"{what}: {name}", expected.grad, whole(parameter.grad, expected.shape), 1e-4)


def check_start(stem: str, options: dict[str, Any]) -> None:
    """A model that is laid out on the meta device and sharded starts as one that is made in place."""
    expected = build(stem, options)
    with torch.device("meta"):
        sharded = build(stem, options)
    for block in sharded.base_model.layers:
        fully_shard(block)
    fully_shard(sharded)
    sharded.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in sharded.parameters():
            parameter.to_local().fill_(math.nan)
    sharded.init_weights()
    another = build(stem, options, seed=1)
    for (name, first), second, parameter in zip(
        expected.named_parameters(), another.parameters(), sharded.parameters()
    ):
        value = parameter.full_tensor()
        assert value.isfinite().all(), name
        assert not torch.equal(first, second) or torch.equal(first, value), name


def whole(gradient: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """A gradient of all ranks; old releases of transformers keep plain tensors where later ones keep DTensors."""
    if isinstance(gradient, DTensor):
        return gradient.full_tensor()
    split = [dim for dim in range(gradient.ndim) if gradient.shape[dim] != shape[dim]]
    if not split:
        return gradient
    pieces = [torch.empty_like(gradient) for _ in range(WORLD)]
    dist.all_gather(pieces, gradient.contiguous())
    return torch.cat(pieces, split[0])


def work(folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    ids = torch.randint(64, (2 * WORLD, 20), generator=torch.Generator().manual_seed(0))
    for name, (stem, options) in MODELS.items():
        sharded = build(stem, options)
        for block in sharded.model.layers:
            fully_shard(block)
        fully_shard(sharded)
        check(f"{name}, sharded", build(stem, options), sharded, ids[rank::WORLD], ids)

        split = AutoModelForCausalLM.from_pretrained(f"{folder}/{name}", tp_plan="auto").train()
        weight = split.model.layers[0].mlp.up_proj.weight
        assert (weight.to_local() if isinstance(weight, DTensor) else weight).shape == (48 // WORLD, 32)
        check(f"{name}, tensor parallel", build(stem, options), split, ids, ids)
    for stem, options in FROM_META.items():
        check_start(stem, options)
    dist.barrier()


@pytest.mark.skipif(not dist.is_available(), reason="this PyTorch is built without torch.distributed")
def test_two_processes_give_the_gradients_of_one(tmp_path: Path) -> None:
    for name, (stem, options) in MODELS.items():
        build(stem, options).save_pretrained(tmp_path / name)
    run_ranks([__file__, tmp_path], WORLD)


if __name__ == "__main__":
    work(sys.argv[1])
    sys.stdout.flush()
    # Gloo's threads may outlive the interpreter and then abort the process (PyTorch 2.13): end it without farewells.
    os._exit(0)
