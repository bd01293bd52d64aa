"""The display while a model trains: a bar on a terminal, else a line at each measurement."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class Progress(TrainerCallback):
    """Loss, speed and memory.

    Args:
        tokens_per_step: tokens of all processes.
        to_bits: makes bits per byte of a held-out loss in nats per token.
    """

    def __init__(self, tokens_per_step: int, to_bits: Callable[[float], float]) -> None:
        self._tokens_per_step = tokens_per_step
        self._to_bits = to_bits
        self._bar: tqdm[Any] | None = None
        self._shown: dict[str, str] = {}
        self._segments: list[tuple[int, float]] = []
        self._started: tuple[int, float] | None = None

    @property
    def tokens_per_second(self) -> float:
        """Speed of training without measurements and checkpoints, nor the first steps, which may compile kernels."""
        segments = self._segments[1:] or self._segments
        seconds = sum(seconds for _, seconds in segments)
        return sum(steps for steps, _ in segments) * self._tokens_per_step / seconds if seconds else 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Put up the bar."""
        if state.is_world_process_zero and state.global_step < state.max_steps:
            form = "{n}/{total} |{bar}| {remaining}{postfix}"
            self._bar = tqdm(
                total=state.max_steps,
                initial=state.global_step,
                bar_format=form,
                disable=not sys.stderr.isatty(),
                dynamic_ncols=True,
            )

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock, unless it runs."""
        if self._started is None:
            self._started = state.global_step, time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Stop the clock: the loss has just been read, so the device is through, and a measurement may follow."""
        if not logs or "loss" not in logs or self._started is None:
            return
        steps, start = self._started
        self._segments.append((state.global_step - steps, time.perf_counter() - start))
        self._started = None
        self._shown["loss"] = f"loss {logs['loss'] / math.log(2):.2f}"
        self._refresh()

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show the measurement."""
        bits = self._to_bits((metrics or {})["eval_loss"])
        self._shown["held out"] = f"held out {bits:.2f} bits/byte"
        self._refresh()
        if self._bar is not None and self._bar.disable:
            print(f"step {state.global_step}/{state.max_steps}: {self._line()}", flush=True)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()

    def _refresh(self) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(self._line())

    def _line(self) -> str:
        speed = f"{self.tokens_per_second / 1000:,.1f}k tokens/s"
        return ", ".join([*self._shown.values(), speed, memory()])


def memory() -> str:
    """The most memory that tensors have taken on the GPU, or what the process takes now."""
    if torch.cuda.is_available():
        return f"{torch.cuda.max_memory_allocated() / 1e9:.1f} GB"
    import psutil  # type: ignore[import-untyped]  # accelerate, of the extra `train`, brings it

    return f"{psutil.Process().memory_info().rss / 1e9:.1f} GB"
