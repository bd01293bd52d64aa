"""Write what works into README.md, from the specs, the layers and the models, or check that it is up to date.

python tools/readme.py
python tools/readme.py --check
"""

import argparse
import sys
from pathlib import Path
from textwrap import fill

import fla.layers
import fla.models
from fla.utils.spec import specs

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- what works: written by tools/readme.py -->", "<!-- end -->"
BEGIN_NAMES, END_NAMES = "<!-- layers and models: written by tools/readme.py -->", "<!-- end of layers and models -->"
FEATURES = {
    "state": "state in and out",
    "packed": "packed sequences",
    "compile": "`torch.compile`",
    "backward": "backward",
}
BACKENDS = ("triton", "torch", "reference")
HYBRIDS = (
    "hybrids: any mixer of `fla.layers` in any layer, from the config alone "
    '(`attn=[{"mixer": "GatedDeltaNet", "layers": [...], ...}]`; softmax attention where no mixer is named)'
)


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


def layers_and_models() -> str:
    """The names of all layers and model types, in two sentences."""
    mixers = [f"`{name}`" for name in sorted(fla.layers.__all__) if _is_mixer(getattr(fla.layers, name))]
    configs = [getattr(fla.models, name) for name in fla.models.__all__ if name.endswith("Config")]
    types = sorted(f"`{config.model_type}`" for config in configs)
    sentences = f"Layers: {', '.join(mixers)}. Models: {', '.join(types)}, and {HYBRIDS}."
    return fill(sentences, 120, break_long_words=False, break_on_hyphens=False)


def _is_mixer(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, fla.layers.Mixer) and value is not fla.layers.Mixer


def updated(text: str) -> str:
    """``text`` with what is fresh between its marks."""
    for begin, end, content in ((BEGIN, END, table()), (BEGIN_NAMES, END_NAMES, layers_and_models())):
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{content}\n{end}{rest.split(end, 1)[1]}"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="fail unless the table is up to date")
    check = parser.parse_args().check
    text = README.read_text()
    fresh = updated(text)
    if check and fresh != text:
        sys.exit("README.md: what works is out of date; run python tools/readme.py")
    if not check:
        README.write_text(fresh)


if __name__ == "__main__":
    main()
