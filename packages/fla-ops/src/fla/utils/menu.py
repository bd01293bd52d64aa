"""Names that are loaded when they are first asked for (PEP 562), with a suggestion for misspelt ones.

Shared by the five wheels; not public: it may change in any release.
"""

from __future__ import annotations

import ast
import pkgutil
import sys
from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from typing import Any


def read_menu(package: str) -> dict[str, str]:
    """Public name -> the module that it is imported from, as ``__init__.pyi`` beside the package's code has it."""
    source = pkgutil.get_data(package, "__init__.pyi")
    assert source is not None
    imports = [node for node in ast.parse(source).body if isinstance(node, ast.ImportFrom) and node.module]
    return {alias.name: node.module or "" for node in imports for alias in node.names if alias.asname}


def lazy_menu(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a package from its ``__init__.pyi``, the one list of its names.

    Editors and type checkers read the same file. A name that the package imports from itself is one of its modules.
    """
    menu = read_menu(package)

    def get(name: str) -> Any:
        if name not in menu:
            near = get_close_matches(name, menu, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"dir({package}) lists what it has"
            raise AttributeError(f"module {package!r} has no attribute {name!r}; {hint}", name=name)
        home = menu[name]
        value = import_module(f"{home}.{name}") if home == package else getattr(import_module(home), name)
        setattr(sys.modules[package], name, value)
        return value

    names = list(menu)
    return get, lambda: sorted(names), names
