"""Two processes without a GPU: the classes of a loss shared out among ranks give the loss of one process."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from fla.modules.fused_cross_entropy import FusedCrossEntropyLoss
from fla.utils.testing.ranks import run_ranks


def loss_and_gradient(logits: torch.Tensor, target: torch.Tensor, shared: bool) -> tuple[torch.Tensor, torch.Tensor]:
    logits = logits.clone().requires_grad_()
    group = dist.group.WORLD if shared else None
    loss = FusedCrossEntropyLoss(label_smoothing=0.1, lse_square_scale=0.1, process_group=group)(logits, target)
    (gradient,) = torch.autograd.grad(loss, logits)
    return loss.detach(), gradient


def work(folder: str) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    logits, target = torch.load(f"{folder}/inputs.pt")
    share = logits.chunk(dist.get_world_size(), 1)[rank]
    torch.save(loss_and_gradient(share, target, shared=True), f"{folder}/{rank}.pt")
    dist.barrier()


@pytest.mark.own_device
@pytest.mark.skipif(not dist.is_available(), reason="this PyTorch is built without torch.distributed")
def test_classes_shared_out_among_ranks(tmp_path: Path) -> None:
    logits, target = torch.randn(6, 12, dtype=torch.float64), torch.randint(0, 12, (6,))
    target[1] = -100
    torch.save((logits, target), tmp_path / "inputs.pt")
    run_ranks([__file__, tmp_path])
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    expected = loss_and_gradient(logits, target, shared=False)
    found = (parts[0][0], torch.cat([gradient for _, gradient in parts], 1))
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(parts[1][0], expected[0], atol=1e-12, rtol=1e-12)


if __name__ == "__main__":
    work(sys.argv[1])
    sys.stdout.flush()
    # Gloo's threads may outlive the interpreter and then abort the process (PyTorch 2.13): end it without farewells.
    os._exit(0)
