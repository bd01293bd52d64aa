"""Checkpoints on disk: their config, and their weights, which are read when they are asked for."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import safetensors
import torch

#: The one file of a folder's weights, in the order in which they are looked for; there may be an index in its place.
_KNOWN = ("model.safetensors", "pytorch_model.bin")
_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")


class Checkpoint(Mapping[str, torch.Tensor]):
    """The weights of a checkpoint by name, in the memory of the files wherever their format allows it.

    Args:
        source: a folder of weights, with ``config.json`` or without, or a file of weights.

    Attributes:
        config: content of ``config.json``, None if there is none.

    Raises:
        ValueError: there are no weights, or they cannot be read.
    """

    def __init__(self, source: Path) -> None:
        self.config = _config(source)
        self._open = ExitStack()
        self._files: dict[str, Any] = {}
        for file in _files(source):
            weights = self._weights(file)
            self._files |= dict.fromkeys(weights.keys(), weights)

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def __getitem__(self, name: str) -> torch.Tensor:
        weights = self._files[name]
        tensor: torch.Tensor = weights[name] if isinstance(weights, dict) else weights.get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, name: object) -> bool:
        # A mapping's own would read the tensor.
        return name in self._files

    def _weights(self, file: Path) -> Any:
        try:
            if file.suffix == ".safetensors":
                return self._open.enter_context(safetensors.safe_open(file, "pt"))
            # Files that PyTorch wrote before they were archives cannot be mapped.
            weights = torch.load(file, "cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
        except (safetensors.SafetensorError, OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise ValueError(f"{file}: cannot be read as weights: {reason}") from error
        if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
            raise ValueError(f"{file}: expected tensors by name")
        return weights


def _config(source: Path) -> dict[str, Any] | None:
    file = source / "config.json"
    return _object(file) if file.exists() else None


def _object(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{file}: expected an object")
    return value


def _files(source: Path) -> list[Path]:
    """The files that hold the weights."""
    if source.is_file():
        if source.suffix not in _SUFFIXES:
            raise ValueError(f"{source}: expected a file that ends in {', '.join(_SUFFIXES)}, or a folder")
        return [source]
    if not source.is_dir():
        raise ValueError(f"{source}: there is no such file or folder")
    for name in _KNOWN:
        if (index := source / f"{name}.index.json").exists():
            return sorted(
                {source / file for file in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
            )
        if (source / name).exists():
            return [source / name]
    found = sorted(file for file in source.iterdir() if file.suffix in _SUFFIXES)
    if len(found) > 1:
        raise ValueError(f"{source}: holds {found[0].name} and {len(found) - 1} more; name the file that is meant")
    if not found:
        raise ValueError(
            f"{source}: holds no weights; expected one of {', '.join(_KNOWN)}, or one other file of weights"
        )
    return found
