"""Names that are loaded when they are first asked for (PEP 562), with a suggestion for misspelt ones.

Shared by the five wheels; not public: it may change in any release.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any


def lazy_names(module: str, menu: Mapping[str, str]) -> Callable[[str], Any]:
    """A ``__getattr__`` for ``module``: looks each name of ``menu`` up in the module it stands for, once.

    Define it under ``if not TYPE_CHECKING``: type checkers would take it as a promise that every name exists.
    """

    def get(name: str) -> Any:
        if name not in menu:
            near = get_close_matches(name, menu, n=3)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise AttributeError(f"module {module!r} has no attribute {name!r}{hint}", name=name)
        value = getattr(import_module(menu[name]), name)
        setattr(sys.modules[module], name, value)
        return value

    return get
