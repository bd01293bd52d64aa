"""The text to train on: where it is read from, what is held out, and the windows that are cut from it."""

from __future__ import annotations

import math
import os
import random
import re
import sysconfig
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from fla.models.commands.command_line import UserError, one_line
from fla.models.train.text_files import check_folder, check_text, is_text
from fla.models.train.tokenizer import END_OF_TEXT, VOCABULARY

#: One text in so many is held out; of fewer texts than that, the last so-many-th part of each.
HELD_OUT_EVERY = 10
#: Tokens of held-out text on which the model is measured.
MEASURED_TOKENS = 2**16
#: Folders of the standard library that are left out: tests, and tables that happen to be written in Python.
_NO_PROSE = {"test", "tests", "idle_test", "encodings", "pydoc_data", "site-packages", "dist-packages"}
_DATASET_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?")
_MEGABYTE = 1e6


@dataclass(frozen=True)
class Corpus:
    """Texts as tokens, int16 ``[N]``, each after an end-of-text token."""

    description: str
    train: torch.Tensor
    held_out: torch.Tensor

    @cached_property
    def fingerprint(self) -> str:
        """A digest that tells this corpus from others."""
        digest = sha256(self.train.numpy().tobytes())
        digest.update(self.held_out.numpy().tobytes())
        return digest.hexdigest()[:16]


def load_corpus(data: str | None, max_bytes: int) -> Corpus:
    """Read texts and hold some out.

    Args:
        data: a file of plain text in UTF-8, a folder of them, or ``name[:config]`` of the ``datasets`` library; None
            for the source of Python's standard library.
        max_bytes: read no more than this, in a fixed order.

    Raises:
        UserError: there is no such data, it cannot be read, or there is no text in it.
    """
    if data is None:
        source, texts = "the source of Python's standard library", _library(max_bytes)
    elif Path(data).is_dir():
        source, texts = data, _files(Path(data), max_bytes)
    elif Path(data).exists():
        source, texts = data, iter([_read_text(Path(data), max_bytes)])
    else:
        source, texts = f"dataset {data}", _dataset(data)
    kept = [text for text in _limited(texts, max_bytes) if text]
    if not kept:
        raise UserError(f"--data: there is no text in {source}")
    train, held_out, how = _split(kept)
    size = sum(map(len, kept))
    first = "the first " if size == max_bytes else ""
    number = f"{len(kept):,} {'text' if len(kept) == 1 else 'texts'}"
    description = f"{source}, {first}{size / _MEGABYTE:,.2f} MB in {number}, {how} held out"
    return Corpus(description, _tokens(train), _tokens(held_out))


def _library(max_bytes: int) -> Iterator[bytes]:
    for path in _paths(Path(sysconfig.get_paths()["stdlib"]), _NO_PROSE):
        if path.suffix == ".py" and is_text(path, text := _read(path, max_bytes)):
            yield text


def _files(folder: Path, max_bytes: int) -> Iterator[bytes]:
    """Text files in the order of their names, without hidden ones."""
    for path in _paths(folder):
        yield _read_text(path, max_bytes)


def _paths(folder: Path, skipped: Set[str] = frozenset()) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        check_folder(Path(parent))
        folders[:] = sorted(
            name for name in folders if not name.startswith((".", "__pycache__")) and name not in skipped
        )
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))


def _read_text(path: Path, max_bytes: int) -> bytes:
    text = _read(path, max_bytes)
    check_text(path, text)
    return text


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(max_bytes)
    except OSError as error:
        raise UserError(f"--data: {path} cannot be read: {error.strerror}") from error


def _dataset(name: str) -> Iterator[bytes]:
    path = Path(name)
    # A name that looks like a path would only send somebody who misspelt it to the network.
    is_path = name.startswith((".", "/", "~", "\\")) or path.suffix[1:].isalpha()
    if is_path or not _DATASET_NAME.fullmatch(name):
        raise UserError(f"--data: there is no file or folder {name}")
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            f"--data: there is no file or folder {name}, and for a dataset of that name `datasets` is missing: "
            "pip install 'fla-models[train]'"
        ) from error
    repository, _, config = name.partition(":")
    datasets.disable_progress_bars()
    try:
        rows = datasets.load_dataset(repository, config or None, split="train", streaming=True)
        yield from _texts_of(name, rows)
    except (OSError, ValueError, RuntimeError) as error:  # what `datasets` and the network raise
        message = f"--data: there is no file or folder {name}, nor could a dataset of that name be read"
        raise UserError(f"{message}: {one_line(error)[:300]}") from error


def _texts_of(name: str, rows: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    for row in rows:
        values = [row["text"]] if "text" in row else row.values()
        text = next((value for value in values if isinstance(value, str)), None)
        if text is None:
            raise UserError(f"--data: dataset {name} has no column of text, only {', '.join(row)}")
        yield text.encode()


def _limited(texts: Iterable[bytes], max_bytes: int) -> Iterator[bytes]:
    left = max_bytes
    for text in texts:
        yield text[:left]
        left -= len(text)
        if left <= 0:
            return


def _split(texts: list[bytes]) -> tuple[list[bytes], list[bytes], str]:
    if len(texts) >= HELD_OUT_EVERY:
        held_out = texts[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
        train = [text for index, text in enumerate(texts, 1) if index % HELD_OUT_EVERY]
        return train, held_out, f"{len(held_out):,} of them"
    ends = [len(text) - len(text) // HELD_OUT_EVERY for text in texts]
    pairs = list(zip(texts, ends))
    return [text[:end] for text, end in pairs], [text[end:] for text, end in pairs], "the last tenth"


def _tokens(texts: list[bytes]) -> torch.Tensor:
    end = torch.tensor([END_OF_TEXT], dtype=torch.int16)
    # An empty buffer is refused by PyTorch.
    parts = [torch.frombuffer(bytearray(text), dtype=torch.uint8).short() for text in texts if text]
    return torch.cat([piece for part in parts for piece in (end, part)]) if parts else end


class RandomWindows(Dataset[dict[str, torch.Tensor]]):
    """Sequences from random places. The i-th depends on the seed and on i alone, so a resumed run goes on in order."""

    def __init__(self, tokens: torch.Tensor, length: int, count: int, seed: int) -> None:
        self.tokens, self.length, self.count, self.seed = tokens, length, count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if index >= self.count:
            raise IndexError(index)
        start = random.Random(f"{self.seed} {index}").randrange(len(self.tokens) - self.length + 1)
        return _example(self.tokens[start : start + self.length])


class HeldOutWindows(Dataset[dict[str, torch.Tensor]]):
    """Sequences spread evenly over the held-out text, and how to count bits per byte on them."""

    def __init__(self, tokens: torch.Tensor, length: int) -> None:
        count = max(1, min(MEASURED_TOKENS, len(tokens)) // length)
        starts = torch.linspace(0, len(tokens) - length, count, dtype=torch.float64).long().tolist()
        self.windows = torch.stack([tokens[start : start + length] for start in starts])

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return _example(self.windows[index])

    @property
    def _targets(self) -> torch.Tensor:
        return self.windows[:, 1:]

    def bits_per_byte(self, loss: float) -> float:
        """Bits per byte by the mean loss of a token in nats; bytes pay for the tokens between texts."""
        tokens = self._targets.numel()
        count = int((self._targets != END_OF_TEXT).sum())
        return loss * tokens / max(1, count) / math.log(2)

    def order_0(self, train: torch.Tensor) -> float:
        """Bits per byte of a model that knows how often each byte occurs in the training text, and nothing else."""
        counts = torch.bincount(train.int(), minlength=VOCABULARY).double() + 1
        nats = -(counts / counts.sum()).log()
        return self.bits_per_byte(float(nats[self._targets.int()].mean()))


def windows(corpus: Corpus, length: int, count: int, seed: int) -> tuple[RandomWindows, HeldOutWindows]:
    """The windows to train on, and those to measure on.

    Raises:
        UserError: the text is shorter than a sequence.
    """
    if min(len(corpus.train), len(corpus.held_out)) < length:
        raise UserError(
            f"--length {length}: a sequence is longer than the data, "
            f"{len(corpus.train):,} tokens to train on and {len(corpus.held_out):,} held out"
        )
    return RandomWindows(corpus.train, length, count, seed), HeldOutWindows(corpus.held_out, length)


def _example(window: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"input_ids": window.long(), "labels": window.long()}
