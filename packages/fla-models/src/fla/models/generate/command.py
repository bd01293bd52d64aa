"""Let a language model continue a text.

CHECKPOINT is a folder that `python -m fla.models.train` or `save_pretrained` wrote (of a run that was stopped, its
last checkpoint is taken), or the name of a model on the Hugging Face Hub. The text appears as it is written.

    python -m fla.models.generate runs/gla --prompt "def main("
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoTokenizer, GenerationConfig, PreTrainedConfig, TextStreamer, set_seed
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils import logging

from fla.models.base.registration import causal_lm_of
from fla.models.commands.command_line import (
    Parser,
    UserError,
    one_line,
    positive_float,
    positive_int,
    probability,
    seed,
)
from fla.models.commands.run_folder import newest_whole
from fla.utils.hardware import best_device

PROG = "python -m fla.models.generate"


def load(checkpoint: str) -> tuple[Any, PreTrainedTokenizerBase]:
    """A causal language model and its tokenizer.

    Args:
        checkpoint: a folder of a model, one of a training run, or the name of a model on the Hub.

    Raises:
        UserError: there is none, or it is not whole.
    """
    folder = Path(checkpoint)
    if folder.is_file():
        raise UserError(f"{checkpoint} is a file; expected the folder of a checkpoint")
    if folder.is_dir() and not (folder / "config.json").exists():
        newest = newest_whole(folder)
        if newest is None:
            raise UserError(f"{checkpoint} holds no whole checkpoint, nor a model's config.json")
        folder = newest
    try:
        config, _ = PreTrainedConfig.get_config_dict(str(folder))
        loaded: Any = causal_lm_of(config).from_pretrained(str(folder), output_loading_info=True)
        tokenizer = AutoTokenizer.from_pretrained(str(folder))
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        if not folder.exists():
            raise UserError(f"{checkpoint}: no folder, and no model of that name could be loaded") from error
        raise UserError(f"{checkpoint} cannot be loaded: {one_line(error)[:300]}") from error
    model, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise UserError(f"{checkpoint} cannot be loaded: {len(missing)} weights are missing, {missing[0]} first")
    return model.eval(), tokenizer


def write_text(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    *,
    tokens: int = 400,
    temperature: float = 0.8,
    top_p: float = 0.95,
    greedy: bool = False,
) -> str:
    """Print the continuation of a text while it is written.

    Args:
        model: the model that `load` returned, on any device.
        tokenizer: the tokenizer of the model.
        prompt: the text to continue; a new text if it is empty.
        tokens: at most so many new ones; the end of the text ends it sooner.
        temperature: the temperature of sampling.
        top_p: sample from the likeliest tokens that have this probability together.
        greedy: take the likeliest token instead.

    Returns:
        The prompt and its continuation.

    Raises:
        UserError: no token to begin an empty prompt with.
    """
    ids = tokenizer(prompt, return_tensors="pt").input_ids.long() if prompt else torch.zeros(1, 0, dtype=torch.long)
    if not ids.numel():
        first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        if first is None:
            raise UserError("--prompt: this model has no token that begins a text, so give some text")
        ids = torch.tensor([[first]])
    sampling = {} if greedy else {"temperature": temperature, "top_p": top_p, "top_k": 0}
    config = GenerationConfig(
        max_new_tokens=tokens,
        do_sample=not greedy,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
        **sampling,
    )
    ids = ids.to(model.device)
    streamer = _Streamer(tokenizer, skip_special_tokens=True)
    with torch.inference_mode():
        output = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config, streamer=streamer)
    return str(tokenizer.decode(output[0], skip_special_tokens=True))


class _Streamer(TextStreamer):
    """Shows control characters on a terminal instead of obeying them: a young model of bytes writes anything."""

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        if sys.stdout.isatty():
            text = "".join("\N{REPLACEMENT CHARACTER}" if _controls(character) else character for character in text)
        super().on_finalized_text(text, stream_end)


def _controls(character: str) -> bool:
    return unicodedata.category(character) == "Cc" and character not in "\n\t"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = Parser(PROG, "CHECKPOINT [options]", __doc__ or "")
    parser.add_argument("checkpoint", metavar="CHECKPOINT")
    parser.add_argument("--prompt", default="", help="the text to continue (default: begin a new one)")
    parser.add_argument("--tokens", type=positive_int, default=400, help="write at most so many (default 400)")
    parser.add_argument("--temperature", type=positive_float, default=0.8, help="of sampling (default 0.8)")
    parser.add_argument("--top-p", type=probability, default=0.95, help="sample from the likeliest (default 0.95)")
    parser.add_argument("--greedy", action="store_true", help="take the likeliest token each time")
    parser.add_argument("--seed", type=seed, default=0, help="of sampling (default 0)")
    options = parser.parse_args(arguments)

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a text stream at the command line
    model, tokenizer = load(options.checkpoint)
    set_seed(options.seed)
    write_text(
        model.to(best_device()),
        tokenizer,
        options.prompt,
        tokens=options.tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        greedy=options.greedy,
    )
    return 0
