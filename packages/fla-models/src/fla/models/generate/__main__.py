"""``python -m fla.models.generate``: see :mod:`fla.models.generate.command`."""

from fla.models.commands.command_line import exit_code
from fla.models.generate.command import PROG, main

if __name__ == "__main__":
    raise SystemExit(exit_code(PROG, main))
