"""Module paths that have moved: the old path imports the module that stands at the new one.

Shared by the five wheels; not public: it may change in any release.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

#: Old path -> new path.
_MOVED: dict[str, str] = {}


class _Finder(MetaPathFinder, Loader):
    """Asked first: a folder that an old version left behind would count as a package, and hide what has moved."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in _MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        # What stands in sys.modules afterwards is what importlib hands out.
        sys.modules[module.__name__] = import_module(_MOVED[module.__name__])


def moved(paths: Mapping[str, str]) -> None:
    """Let old module paths stand for new ones: one module under two names, loaded when either is first imported.

    Pickles name the module of a class, so a file that was written before a move can be read after it.

    Args:
        paths: old path -> new path. The package that holds an old path calls this when it is imported.
    """
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    _MOVED.update(paths)
