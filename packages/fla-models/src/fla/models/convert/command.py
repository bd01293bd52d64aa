"""Make a checkpoint of another program one of ours, or one of ours another program's.

SOURCE is a folder of transformers' Llama, Mistral, Qwen2, Qwen3, Mamba or Mamba2, or of state-spaces' Mamba or
Mamba-2; or a release of RWKV-6 or RWKV-7, which is one file. DESTINATION is a new folder: it will hold the same
weights in the same dtype for `AutoModelForCausalLM.from_pretrained` (after `import fla.models`), and the tokenizer
where there is one.

    python -m fla.models.convert Qwen3-0.6B/ qwen3-as-ours
    python -m fla.models.convert RWKV-x070-World-0.1B-v2.8.pth rwkv7-as-ours
    python -m fla.models.convert qwen3-as-ours qwen3 --to transformers

A model on the Hugging Face Hub has to be fetched first: `hf download NAME --local-dir FOLDER`.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers.utils import logging

from fla.models.commands.command_line import Parser, UserError, one_line, say
from fla.models.convert.weights.checkpoints import TYPES, convert_checkpoint

PROG = "python -m fla.models.convert"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = Parser(PROG, "SOURCE DESTINATION [--to TYPE]", __doc__ or "")
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("destination", metavar="DESTINATION")
    parser.add_argument(
        "--to",
        metavar="TYPE",
        choices=TYPES,
        help=f"what it is to become: {', '.join(TYPES)} (default: what follows from SOURCE)",
    )
    options = parser.parse_args(arguments)

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        say(convert_checkpoint(options.source, options.destination, options.to))
    except ValueError as error:
        raise UserError(one_line(error)) from error
    return 0
