"""Every registered op that the public functions call, as PyTorch checks ops: schema, and fakes of the right kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fla.ops._shared.cases import flatten
from fla.utils import registration
from fla.utils.spec import SequenceOp, specs

OPS = [op for spec in specs("fla.ops") for op in spec.sequence_ops]
#: Ops that were checked, and which of their arguments were None: families share them.
CHECKED: set[tuple[Any, tuple[bool, ...]]] = set()


class Recorder(TorchDispatchMode):
    """Keeps the arguments of each op of ours that is called."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[Any, Sequence[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func.namespace == "fla":
            self.calls[func] = args
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("packed", [False, True], ids=["dense", "packed"])
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_ops_are_as_pytorch_wants_them(op: SequenceOp, packed: bool, device: torch.device) -> None:
    sizes = {"B": 1, "T": 20, "H": 2, "HV": 4, "K": 8, "V": 12, "M": 6}
    inputs = op.make(sizes, torch.Generator().manual_seed(0), torch.float32)
    leaves = {name: x.to(device).requires_grad_() for name, x in inputs.items()}
    ends = torch.tensor([0, 3, 3, 20], device=device) if packed else None
    with Recorder() as recorder:
        results = list(flatten(op.function(**leaves, output_final_state=True, cu_seqlens=ends)))
        torch.autograd.grad(sum(x.sum() for x in results), list(leaves.values()))
    assert recorder.calls
    for registered, args in recorder.calls.items():
        kind = registered, tuple(x is None for x in args)
        if kind not in CHECKED:
            # Gradients are made by an autograd.Function around the ops: they have none of their own.
            detached = tuple(x.detach() if isinstance(x, torch.Tensor) else x for x in args)
            torch.library.opcheck(registered, detached, test_utils=("test_schema", "test_faketensor"))
            CHECKED.add(kind)


@pytest.mark.parametrize("current", [0, 1])
def test_kernels_are_launched_on_the_gpu_of_the_tensors(current: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Elsewhere(torch.Tensor):
        device = torch.device("cuda", 1)  # type: ignore[assignment]

    chosen: list[Any] = []

    class Guard:
        def __init__(self, device: torch.device) -> None:
            chosen.append(device)

        def __enter__(self) -> None:
            monkeypatch.setattr(torch._C, "_cuda_getDevice", lambda: 1, raising=False)

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(torch._C, "_cuda_getDevice", lambda: current, raising=False)
    monkeypatch.setattr(torch.cuda, "device", Guard)
    run: Callable[..., Any] = registration._in_its_place(lambda *args: args)
    x = torch.zeros(2).as_subclass(Elsewhere)
    assert run(None, x) == (None, x)
    assert chosen == ([] if current == 1 else [torch.device("cuda", 1)])
