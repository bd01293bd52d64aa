"""Tables that several files of tests share: pytest's importlib mode lets none import another by name."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType


def sibling(file: str, name: str) -> ModuleType:
    """The module ``name`` in the folder of ``file``."""
    spec = spec_from_file_location(f"{Path(file).parent.parent.name}.{name}", Path(file).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
