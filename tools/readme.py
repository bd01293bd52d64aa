"""Write the table of what works into README.md from the specs, or check that it is up to date.

python tools/readme.py
python tools/readme.py --check
"""

import argparse
import sys
from pathlib import Path

from fla.utils._spec import specs

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- what works: written by tools/readme.py -->", "<!-- end -->"
FEATURES = {
    "state": "state in and out",
    "packed": "packed sequences",
    "compile": "`torch.compile`",
    "backward": "backward",
}
BACKENDS = ("triton", "torch", "reference")


def table() -> str:
    """A Markdown table with a row for each family of ops and each module."""
    rows = [["", "functions", *BACKENDS, *FEATURES.values()], ["---"] * (2 + len(BACKENDS) + len(FEATURES))]
    for part in ("fla.ops", "fla.modules"):
        for spec in sorted(specs(part), key=lambda spec: spec.name):
            name = f"{spec.name} ([{spec.paper}](https://arxiv.org/abs/{spec.paper}))" if spec.paper else spec.name
            marks = ["yes" if backend in spec.backends else "" for backend in BACKENDS]
            marks += ["yes" if feature in spec.features else "" for feature in FEATURES]
            rows.append([name, ", ".join(f"`{f}`" for f in spec.functions), *marks])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def updated(text: str) -> str:
    """``text`` with a fresh table between the two marks."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END, 1)[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="fail unless the table is up to date")
    check = parser.parse_args().check
    text = README.read_text()
    fresh = updated(text)
    if check and fresh != text:
        sys.exit("README.md: the table of what works is out of date; run python tools/readme.py")
    if not check:
        README.write_text(fresh)


if __name__ == "__main__":
    main()
