"""``python -m fla.models.train``: see :mod:`fla.models.train.command`."""

from fla.models.commands.command_line import exit_code
from fla.models.train.command import PROG, main
from fla.models.train.stop import leave

if __name__ == "__main__":
    leave(exit_code(PROG, main))
