"""Names files and folders that are no text: they are refused, as training on their bytes would teach nothing."""

from __future__ import annotations

import codecs
from pathlib import Path

from fla.models.commands.command_line import UserError

#: Beginnings of files that hold something else.
_BEGINNINGS = {
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"\xff\xff\xff\xff": "an Arrow stream",
    b"\x1f\x8b": "compressed by gzip",
    b"PK\x03\x04": "a ZIP archive",
    b"\x28\xb5\x2f\xfd": "compressed by Zstandard",
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ": "compressed by xz",
    b"\x93NUMPY": "a NumPy array",
    **{bytes([0x80, protocol]): "a pickle" for protocol in range(2, 6)},
}
#: Text that is a container of texts.
_SUFFIXES = {".json": "JSON", ".jsonl": "lines of JSON", ".ndjson": "lines of JSON"}
#: Files that the folder of a dataset has, and of other folders none.
_OF_A_DATASET = ("dataset_info.json", "dataset_dict.json", "state.json")
_TAKEN = "expected plain text in UTF-8, a folder of such files, or the name of a dataset"


def check_text(path: Path, content: bytes) -> None:
    """Check that a file holds plain text.

    Args:
        path: the path of the file.
        content: the bytes read of it, from its start.

    Raises:
        UserError: something else.
    """
    if kind := _other_kind(path, content):
        raise UserError(f"--data: {path} is {kind}; {_TAKEN}")


def is_text(path: Path, content: bytes) -> bool:
    """Whether a file holds plain text; see :func:`check_text`."""
    return _other_kind(path, content) is None


def check_folder(folder: Path) -> None:
    """Check that a folder is not one that ``datasets`` has saved.

    Raises:
        UserError: it is.
    """
    for name in _OF_A_DATASET:
        if (folder / name).exists():
            raise UserError(f"--data: {folder} is a dataset as save_to_disk writes it, with a {name}; {_TAKEN}")


def _other_kind(path: Path, content: bytes) -> str | None:
    for beginning, kind in _BEGINNINGS.items():
        if content.startswith(beginning) and not _is_utf8(content):
            return kind
    # The length of its header, which is JSON.
    if content[8:10] == b'{"' and b"\0" in content[:8]:
        return "a safetensors file"
    if path.suffix.lower() in _SUFFIXES:
        return _SUFFIXES[path.suffix.lower()]
    if b"\0" in content:
        return "binary: there are bytes of zero in it"
    return None if _is_utf8(content) else "no text in UTF-8"


def _is_utf8(content: bytes) -> bool:
    try:
        # The bytes read may end within a character.
        codecs.getincrementaldecoder("utf-8")().decode(content, final=False)
    except UnicodeDecodeError:
        return False
    return True
