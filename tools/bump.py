"""Write one version into all packages, or check that they agree.

    python tools/bump.py 1.1.0
    python tools/bump.py --check

The version stands in each pyproject.toml, in every requirement of one package on another (pinned
exactly, extras included), and in packages/fla/src/fla/__init__.py.
"""

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSION = re.compile(r"\d+\.\d+\.\d+((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?")
PROJECT = re.compile(r'^(version = ")(.*)(")$', re.MULTILINE)
MODULE = re.compile(r'^(__version__ = ")(.*)(")$', re.MULTILINE)


def pins(names: list[str]) -> re.Pattern[str]:
    """Requirements on the packages of these names: what comes before the pin, the pin, what ends it."""
    return re.compile(rf'(?<!name = )("(?:{"|".join(names)})(?:\[[^]]*\])?)(\s*[=<>!~][^";]*|)([";])')


def places(root: Path) -> list[tuple[Path, re.Pattern[str], str]]:
    """Where the version stands: a file, a pattern with the version as its second group, what precedes it there."""
    projects = sorted(root.glob("packages/*/pyproject.toml"))
    names = [project.parent.name for project in projects]
    found = [(project, PROJECT, "") for project in projects]
    found += [(root / "packages/fla/src/fla/__init__.py", MODULE, "")]
    return found + [(project, pins(names), "==") for project in projects]


def disagreements(root: Path) -> list[str]:
    """The places that do not hold the version of the first package, as one line each."""
    version, wrong = None, []
    for path, pattern, prefix in places(root):
        matches = list(pattern.finditer(path.read_text()))
        if not matches and not prefix:
            wrong.append(f"{path.relative_to(root)}: no version")
        for match in matches:
            version = version or match[2]
            if match[2] != prefix + version:
                line = match.string.count("\n", 0, match.start()) + 1
                wrong.append(f"{path.relative_to(root)}:{line}: {match[0]} is not at {version}")
    return wrong


def bump(root: Path, version: str) -> None:
    for path, pattern, prefix in places(root):
        path.write_text(pattern.sub(rf"\g<1>{prefix}{version}\g<3>", path.read_text()))


def main(argv: list[str] | None = None, root: Path = ROOT) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("version", nargs="?", help="the new version, such as 1.1.0 or 1.1.0rc1")
    action.add_argument("--check", action="store_true", help="fail unless all packages agree")
    args = parser.parse_args(argv)
    if args.check:
        if wrong := disagreements(root):
            sys.exit("\n".join(wrong))
    elif VERSION.fullmatch(args.version):
        bump(root, args.version)
    else:
        parser.error(f"{args.version!r} is not a version such as 1.1.0, 1.1.0rc1 or 1.1.0.dev0")


if __name__ == "__main__":
    main()
