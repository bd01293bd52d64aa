"""``python -m fla.models.convert``: see :mod:`fla.models.convert.command`."""

from fla.models.commands.command_line import exit_code
from fla.models.convert.command import PROG, main

if __name__ == "__main__":
    raise SystemExit(exit_code(PROG, main))
