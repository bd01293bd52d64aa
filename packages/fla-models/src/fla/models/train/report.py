"""Results of a run besides the model: its numbers and the picture of its loss."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any


def write_results(path: Path, results: Mapping[str, Any]) -> None:
    """Write the numbers of a run as JSON."""
    path.write_text(json.dumps(results, indent=1) + "\n")


def held_out_bits(history: Sequence[Mapping[str, float]], to_bits: Callable[[float], float]) -> list[tuple[int, float]]:
    """Steps and bits per byte of the measurements in a Trainer's log."""
    return [(int(entry["step"]), to_bits(entry["eval_loss"])) for entry in history if "eval_loss" in entry]


def plot_loss(
    path: Path, title: str, history: Sequence[Mapping[str, float]], to_bits: Callable[[float], float], order_0: float
) -> None:
    """Draw the loss of training and of the held-out text over the steps, as a PNG.

    Args:
        path: the path of the PNG.
        title: the title above it.
        history: a Trainer's log.
        to_bits: makes bits per byte of a held-out loss in nats per token.
        order_0: bits per byte of byte frequencies alone.
    """
    # The object interface needs no display and leaves the settings of pyplot alone.
    from matplotlib.figure import Figure

    training = [(int(entry["step"]), entry["loss"] / math.log(2)) for entry in history if "loss" in entry]
    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(*zip(*training), color="tab:blue", alpha=0.4, label="training")
    axes.plot(*zip(*held_out_bits(history, to_bits)), color="tab:blue", marker="o", markersize=4, label="held out")
    axes.axhline(order_0, color="tab:gray", linestyle="--", label="byte frequencies (order 0), held out")
    axes.set(title=title, xlabel="step", ylabel="bits per byte", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path)
