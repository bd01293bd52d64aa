"""Tensors that follow from numbers alone: when they are kept, and who may read them."""

from __future__ import annotations

import pytest
import torch

from fla.ops._shared import kept as _kept
from fla.ops._shared.kept import kept


@kept
def counted(device: torch.device, size: int) -> torch.Tensor:
    return torch.arange(size, device=device)


def test_what_is_kept_is_made_once_and_waited_for_once(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[torch.device] = []
    monkeypatch.setattr(_kept, "_wait", waits.append)
    like = torch.zeros(1, device=device)
    with torch.inference_mode():
        first = counted(like, 7)
    assert not first.is_inference()
    assert counted(like, 7) is first
    assert counted(like, 8) is not first
    assert waits == [like.device, like.device]


def test_what_a_capture_makes_belongs_to_its_graph(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    like = torch.zeros(1, device=device)
    before = counted(like, 9)
    with monkeypatch.context() as capture:
        capture.setattr(_kept, "_is_captured", lambda device: True)
        capture.setattr(_kept, "_wait", lambda device: pytest.fail("waiting ends a capture"))
        inside = counted(like, 10)
        assert counted(like, 9) is before
        assert counted(like, 10) is not inside
    assert counted(like, 10) is not inside


def test_nothing_is_kept_for_fake_tensors_or_inside_a_graph(device: torch.device) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        counted(torch.zeros(1, device=device), 11)
    like = torch.zeros(1, device=device)
    assert type(counted(like, 11)) is torch.Tensor
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: counted(x, 12) + x, fullgraph=True, backend="eager")
    assert compiled(like).tolist() == list(range(12))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
def test_a_captured_call_leaves_a_right_tensor_behind() -> None:
    like = torch.zeros(1, device="cuda")
    side = torch.cuda.Stream()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        inside = counted(like, 13) + 0
    assert counted(like, 13).tolist() == list(range(13))
    graph.replay()
    assert inside.tolist() == list(range(13))
