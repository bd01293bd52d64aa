"""Stop of a run before its last step without loss: Ctrl-C or SIGTERM, then a checkpoint, then the end."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from fla.models.commands.command_line import UserError, say
from fla.models.commands.run_folder import mark_whole

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopAtStep(TrainerCallback):
    """While entered, the first SIGINT or SIGTERM ends training after the step under way, with a checkpoint.

    A process alone ends at once on the second signal. Of several, each gets signals at its own step and sometimes
    twice, so they agree on the step and wait for it.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopAtStep:
        self._before = {number: signal.signal(number, self._receive) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Ask for a last log and a checkpoint, once a signal has come."""
        if self._agreed(args, state):
            control.should_log = control.should_save = control.should_training_stop = True
        return control

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            say("\nstopping after this step")
        self.received = number
        if not _several():
            self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _agreed(self, args: TrainingArguments, state: TrainerState) -> bool:
        if not _several():
            return self.received is not None
        if state.global_step % max(1, int(state.logging_steps)):
            return False
        received = torch.tensor(self.received or 0, device=args.device)
        torch.distributed.all_reduce(received, torch.distributed.ReduceOp.MAX)
        self.received = int(received) or None
        return self.received is not None


class MarkWhole(TrainerCallback):
    """Marks each checkpoint once every process has written its part."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the mark."""
        if _several():
            torch.distributed.barrier()
        if args.should_save:
            mark_whole(Path(str(args.output_dir), f"checkpoint-{state.global_step}"))


class RefuseDivergence(TrainerCallback):
    """Ends a run whose loss is no longer a number."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Look at the loss."""
        loss = (logs or {}).get("loss", 0.0)
        if not torch.isfinite(torch.tensor(loss)):
            raise UserError(f"the loss is {loss} at step {state.global_step}: try a lower --lr, with --fresh")


_KEPT: list[object] = []


def keep(trainer: object) -> None:
    """Let what holds the process group live as long as the process, if there are several.

    Gloo joins its threads when the last of it is freed, while the interpreter's lock is held, and one of them may be
    waiting for that lock: so it was with PyTorch 2.13.
    """
    if _several():
        _KEPT.append(trainer)


def leave(code: int) -> NoReturn:
    """End the process; one of several ends without freeing anything."""
    if _several():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise SystemExit(code)


def _several() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
