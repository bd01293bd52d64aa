"""Parts of a command line: errors in one line, checks of numbers, one voice among several processes."""

from __future__ import annotations

import argparse
import difflib
import errno
import os
import sys
from collections.abc import Callable, Iterable
from typing import NoReturn

#: Trouble with files that is told without a traceback wherever it comes from.
_DISK_ERRORS = frozenset({errno.EACCES, errno.EDQUOT, errno.ENOSPC, errno.EPERM, errno.EROFS})


class UserError(Exception):
    """An error that the person who typed the command can put right; told in one line."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line long, and told once however many processes run."""

    def __init__(self, prog: str, usage: str, doc: str) -> None:
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(prog, f"{prog} {usage}", doc, formatter_class=formatter, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def is_main_process() -> bool:
    """Whether this process is the one that talks: the first of those that torchrun or accelerate started."""
    return os.environ.get("RANK", "0") == "0"


def say(*parts: object) -> None:
    """Print, in the main process only."""
    if is_main_process():
        print(*parts, flush=True)


def exit_code(prog: str, main: Callable[[], int]) -> int:
    """The exit code of ``main``: 2 after a user's error, which goes to stderr, and 130 after Ctrl-C."""
    try:
        return main()
    except UserError as error:
        message = str(error)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            # Whoever read the text has gone; without this Python would fail again when it flushes on its way out.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        if error.errno not in _DISK_ERRORS:
            raise
        message = f"{error.filename or 'the disk'}: {error.strerror}"
    except KeyboardInterrupt:
        return 130
    if is_main_process():
        print(f"{prog}: error: {message}", file=sys.stderr)
    return 2


def one_line(error: BaseException) -> str:
    """The message of an error without its line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def suggest(word: str, known: Iterable[str]) -> str:
    """``"; did you mean a, b?"`` where something known resembles the word, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=3, cutoff=0.6)
    return f"; did you mean {', '.join(close)}?" if close else ""


def positive_int(text: str) -> int:
    """A whole number above 0, for argparse."""
    return int(_number(text, int, lambda value: value > 0, "a whole number above 0"))


def seed(text: str) -> int:
    """A seed that every random generator takes, for argparse."""
    return int(_number(text, int, lambda value: 0 <= value < 2**32, "a whole number from 0 to 2**32 - 1"))


def positive_float(text: str) -> float:
    """A finite number above 0, for argparse."""
    return _number(text, float, lambda value: 0 < value < float("inf"), "a number above 0")


def probability(text: str) -> float:
    """A number above 0 and at most 1, for argparse."""
    return _number(text, float, lambda value: 0 < value <= 1, "a number above 0 and at most 1")


def _number(text: str, kind: Callable[[str], float], fits: Callable[[float], bool], expected: str) -> float:
    try:
        value = kind(text)
    except ValueError:
        value = float("nan")
    if not fits(value):
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
    return value
