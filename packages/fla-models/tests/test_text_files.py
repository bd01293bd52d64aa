"""What ``--data`` takes for text, and how it refuses the rest."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fla.models import train
from fla.models.commands.command_line import UserError, exit_code
from fla.models.train.corpus import load_corpus
from fla.models.train.tokenizer import END_OF_TEXT

# Text is read on the CPU.
pytestmark = pytest.mark.own_device
TEXT = "What is read is text: café, 漢字, \U0001f426. " * 40
ROWS = [{"text": f"row {index}"} for index in range(50)]


def write_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("text.txt", TEXT)


def write_parquet(path: Path) -> None:
    table = pytest.importorskip("pyarrow").Table.from_pylist(ROWS)
    pytest.importorskip("pyarrow.parquet").write_table(table, path)


def write_arrow(path: Path) -> None:
    """As ``datasets`` writes it."""
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.Table.from_pylist(ROWS)
    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)


def write_numpy(path: Path) -> None:
    with path.open("wb") as file:
        pytest.importorskip("numpy").save(file, torch.arange(99).numpy())


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "x.parquet": (write_parquet, "a Parquet file"),
    "x.arrow": (write_arrow, "an Arrow stream"),
    "x.json": (lambda path: path.write_text(json.dumps(ROWS)), "JSON"),
    "x.jsonl": (lambda path: path.write_text("\n".join(map(json.dumps, ROWS))), "lines of JSON"),
    "x.NDJSON": (lambda path: path.write_text("\n".join(map(json.dumps, ROWS))), "lines of JSON"),
    "x.txt.gz": (lambda path: path.write_bytes(gzip.compress(TEXT.encode())), "compressed by gzip"),
    "x.txt.bz2": (lambda path: path.write_bytes(bz2.compress(TEXT.encode())), "compressed by bzip2"),
    "x.txt.xz": (lambda path: path.write_bytes(lzma.compress(TEXT.encode())), "compressed by xz"),
    "x.zip": (write_zip, "a ZIP archive"),
    # A frame that holds one raw block.
    "x.zst": (
        lambda path: path.write_bytes(b"\x28\xb5\x2f\xfd\x20\x03\x19\x00\x00abc"),
        "compressed by Zstandard",
    ),
    "x.npy": (write_numpy, "a NumPy array"),
    "x.safetensors": (lambda path: save_file({"x": torch.ones(99)}, path), "a safetensors file"),
    "x.pkl": (lambda path: path.write_bytes(pickle.dumps([TEXT])), "a pickle"),
    "x.pt": (lambda path: torch.save({"x": torch.ones(99)}, path), "a ZIP archive"),
    "zeros": (lambda path: path.write_bytes(b"text\0" * 99), "binary: there are bytes of zero in it"),
    "late zeros.txt": (lambda path: path.write_bytes(b"text" * 9999 + b"\0"), "binary: there are bytes of zero in it"),
    "utf-16.txt": (lambda path: path.write_text(TEXT, "utf-16"), "binary: there are bytes of zero in it"),
    "latin-1.txt": (lambda path: path.write_bytes("café ".encode("latin-1") * 99), "no text in UTF-8"),
}
every_file = pytest.mark.parametrize("name", FILES)


@every_file
def test_a_file_that_is_no_text_is_refused_by_name(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write, kind = FILES[name]
    write(tmp_path / name)
    out = tmp_path / "out"
    arguments = ["--data", str(tmp_path / name), "--out", str(out), "--steps", "1"]
    assert exit_code("train", lambda: train.main(arguments)) == 2
    assert f"--data: {tmp_path / name} is {kind}; expected plain text in UTF-8" in capsys.readouterr().err
    assert not out.exists()


@every_file
def test_among_texts_it_is_named(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    (folder / "deep").mkdir(parents=True)
    for index in range(3):
        (folder / f"{index}.txt").write_text(TEXT)
    write, kind = FILES[name]
    write(tmp_path / name)
    (tmp_path / name).rename(folder / "deep" / name)
    with pytest.raises(UserError) as raised:
        load_corpus(str(folder), 10**6)
    assert str(raised.value).startswith(f"--data: {folder / 'deep' / name} is {kind}; expected")


@pytest.mark.parametrize("splits", [False, True])
def test_a_saved_dataset_is_refused_by_name(splits: bool, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    data = folder / "train" if splits else folder
    data.mkdir(parents=True)
    if splits:
        (folder / "dataset_dict.json").write_text('{"splits": ["train"]}')
    for name in ("dataset_info.json", "state.json"):
        (data / name).write_text("{}")
    (data / "data-00000-of-00001.arrow").write_bytes(b"\xff\xff\xff\xff")
    for given in (folder, folder / "train") if splits else (folder, tmp_path):
        with pytest.raises(
            UserError, match=r"is a dataset as save_to_disk writes it, with a dataset_\w+\.json; expected"
        ):
            load_corpus(str(given), 10**6)


@pytest.mark.parametrize("cut", range(4))
def test_text_in_any_script_is_read_and_may_be_cut_within_a_character(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(TEXT.encode())
    corpus = load_corpus(str(path), len(TEXT.encode()) - 3 - cut)
    tokens = torch.cat([corpus.train, corpus.held_out[1:]]).tolist()
    assert tokens == [END_OF_TEXT, *TEXT.encode()[: -3 - cut]]


def test_text_that_begins_like_another_file_is_text(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    for beginning in ("PAR1", "BZh", "ARROW1"):
        path.write_text(beginning + TEXT)
        assert bytes(load_corpus(str(path), 10**6).train[1:20].tolist()).startswith(beginning.encode())
