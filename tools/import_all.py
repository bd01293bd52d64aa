"""Import every module under some packages: a module may lack only what the given distributions bring."""

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Iterator


def modules(package: str) -> Iterator[str]:
    """The package and all below it; programs (``__main__``) are left out, as importing would run them."""
    yield package
    path = importlib.import_module(package).__path__
    for found in pkgutil.iter_modules(path, f"{package}."):
        if found.ispkg:
            yield from modules(found.name)
        elif not found.name.endswith(".__main__"):
            yield found.name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", nargs="+")
    parser.add_argument("--optional", nargs="*", default=[], help="distributions that may be missing")
    args = parser.parse_args()
    optional = {name.replace("-", "_") for name in args.optional}
    count = 0
    for package in args.packages:
        for name in modules(package):
            try:
                importlib.import_module(name)
            except ModuleNotFoundError as error:
                missing = str(error.name).split(".")[0]
                if missing not in optional:
                    sys.exit(f"{name} imports {missing}, which its package does not declare")
                print(f"{name}: needs {missing}")
            count += 1
    print(f"{count} modules imported")


if __name__ == "__main__":
    main()
