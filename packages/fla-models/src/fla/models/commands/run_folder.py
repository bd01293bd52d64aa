"""The folder of a training run: its settings, the checkpoints that are whole, and the one to go on from.

A checkpoint is whole once it holds a list of its files and their sizes, which is written last. One that a crash or a
full disk cut short has no list, or one that does not fit, and is passed over.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fla.models.commands.command_line import UserError

MODES = ("auto", "resume", "fresh")
_RUN = "run.json"
_WHOLE = "whole.json"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def open_run(folder: Path, started_with: Mapping[str, Any], mode: str) -> Path | None:
    """Make the folder ready for a run and find the checkpoint from which to go on.

    Args:
        folder: the folder of the run.
        started_with: settings that may not change in the course of a run, by the names people know them by.
        mode: ``"auto"`` goes on where there is a checkpoint, ``"resume"`` insists on one, ``"fresh"`` starts over.

    Returns:
        The newest whole checkpoint, or None to start from the beginning.

    Raises:
        UserError: the folder is not for this run, or there is nothing to go on from.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out: {folder} is a file")
    record = folder / _RUN
    if folder.is_dir() and any(folder.iterdir()) and not record.exists():
        raise UserError(f"--out: {folder} holds other files than those of a run; take another folder")
    if mode == "fresh":
        for path in _everything(folder):
            shutil.rmtree(path)
        record.unlink(missing_ok=True)
    if not record.exists():
        if mode == "resume":
            raise UserError(f"--resume: there is no run in {folder}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _write(record, started_with)
        except OSError as error:
            raise UserError(f"--out: {folder} cannot be written: {error.strerror}") from error
        return None
    _check_same(folder, _read_record(record), started_with)
    found = newest_whole(folder)
    if found is None and (mode == "resume" or _everything(folder)):
        told = "; ".join(f"{path.name}: {flaw(path)}" for path in _everything(folder)) or "none was written"
        raise UserError(f"{folder}: there is no whole checkpoint to go on from ({told}); --fresh starts over")
    return found


def newest_whole(folder: Path) -> Path | None:
    """The last checkpoint of a run that is whole."""
    return next((path for path in _everything(folder) if flaw(path) is None), None)


def steps_of(checkpoint: Path) -> int:
    """Number of steps that had been made when it was written."""
    return int(checkpoint.name.rpartition("-")[2])


def mark_whole(checkpoint: Path) -> None:
    """Say that all files of a checkpoint have been written."""
    _write(checkpoint / _WHOLE, _sizes(checkpoint))


def flaw(checkpoint: Path) -> str | None:
    """The flaw of a checkpoint, None where it is whole."""
    try:
        listed = json.loads((checkpoint / _WHOLE).read_text())
    except (OSError, ValueError):
        return "never finished"
    sizes = _sizes(checkpoint)
    return next((f"{name} is missing or cut short" for name in listed if sizes.get(name) != listed[name]), None)


def _sizes(checkpoint: Path) -> dict[str, int]:
    files = (path for path in sorted(checkpoint.rglob("*")) if path.is_file() and path.name != _WHOLE)
    return {path.relative_to(checkpoint).as_posix(): path.stat().st_size for path in files}


def _everything(folder: Path) -> list[Path]:
    """The checkpoints of a run, whole or not, newest first."""
    found: Iterator[Path] = folder.glob("checkpoint-*") if folder.is_dir() else iter(())
    return sorted((path for path in found if _CHECKPOINT.fullmatch(path.name)), key=steps_of, reverse=True)


def _read_record(record: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(record.read_text()))
    except (ValueError, TypeError) as error:
        raise UserError(f"{record} cannot be read; --fresh starts over") from error


def _check_same(folder: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for name in now:
        if then.get(name) != now[name]:
            raise UserError(
                f"{folder} was begun with {name} {then.get(name)}, not {now[name]}: "
                "--fresh starts over, --out takes another folder"
            )


def _write(path: Path, content: Mapping[str, Any]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1, default=str))
    os.replace(part, path)
