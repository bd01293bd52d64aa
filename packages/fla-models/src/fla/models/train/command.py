"""Train a small language model on text, byte by byte, and let it write.

    python -m fla.models.train
    python -m fla.models.train --model transformer --data my_texts/ --set hidden_size=256 --steps 1000
    torchrun --nproc-per-node 8 -m fla.models.train --size base

Without options it trains gated linear attention on the source of Python's standard library: a small model in
bfloat16 on a GPU, a tiny one in float32 on the CPU, where two cores take about two minutes. A part of the text is held
out, and the model is measured on it in bits per byte, beside what the frequencies of bytes alone give (order 0).

Ctrl-C, or SIGTERM, ends the run after the step under way; the same command goes on from there with the text in the
same order, as it does from the last checkpoint after a crash. In the end the folder --out holds the model for
`AutoModelForCausalLM.from_pretrained` (after `import fla.models`), its tokenizer, results.json, loss.png and the
last two checkpoints.

It is transformers' Trainer inside, so torchrun and `accelerate launch` start it on several GPUs or machines.
"""

from __future__ import annotations

import importlib.util
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainingArguments, set_seed
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import logging

from fla.models import generate
from fla.models.commands.command_line import (
    Parser,
    UserError,
    is_main_process,
    positive_float,
    positive_int,
    say,
    seed,
)
from fla.models.commands.run_folder import MODES, open_run, steps_of
from fla.models.train.corpus import Corpus, HeldOutWindows, RandomWindows, load_corpus, windows
from fla.models.train.progress import Progress
from fla.models.train.report import held_out_bits, plot_loss, write_results
from fla.models.train.settings import CPU, GPU, SIZES, make_config, make_model, parse_override
from fla.models.train.stop import MarkWhole, RefuseDivergence, StopAtStep, keep
from fla.models.train.tokenizer import byte_tokenizer
from fla.utils.hardware import hardware

PROG = "python -m fla.models.train"
_EXTRA = ("accelerate", "matplotlib")


@dataclass(frozen=True)
class Run:
    """A run with all defaults filled in."""

    model: str
    size: str
    overrides: dict[str, Any]
    data: str | None
    max_bytes: int
    steps: int
    batch: int
    length: int
    lr: float
    seed: int
    out: Path
    mode: str
    prompt: str

    def started_with(self, corpus: Corpus, sequences: int) -> dict[str, Any]:
        """Settings that may not change in the course of the run, by the names people know them by."""
        return {
            "--model": self.model,
            "--size": self.size,
            "--set": self.overrides,
            "the text (fingerprint)": corpus.fingerprint,
            "sequences a step": sequences,
            "--length": self.length,
            "--lr": self.lr,
            "--seed": self.seed,
        }


def parse(arguments: Sequence[str] | None) -> Run:
    """The run that the command line asks for, with the defaults of this machine.

    Raises:
        UserError: an option that does not fit.
    """
    defaults = GPU if hardware().device in ("cuda", "xpu") else CPU
    parser = Parser(PROG, "[options]", __doc__ or "")
    add = parser.add_argument
    add(
        "--model",
        metavar="TYPE",
        default="gla",
        help="any language model of this library or of transformers (default gla)",
    )
    add("--data", metavar="TEXT", help="file, folder, or name[:config] of `datasets` (default: standard library)")
    add("--out", metavar="FOLDER", type=Path, help="folder of the run (default runs/TYPE)")
    add("--size", choices=SIZES, default=defaults.size, help="shape of the model (default here: %(default)s)")
    add("--set", metavar="KEY=VALUE", action="append", default=[], help="a key of the config; may be repeated")
    for name, default, what in (
        ("--steps", defaults.steps, "steps in all"),
        ("--batch", defaults.batch, "sequences a step and process"),
        ("--length", defaults.length, "bytes of a sequence"),
        ("--max-bytes", 2**28, "read at most so much text"),
    ):
        add(name, metavar="N", type=positive_int, default=default, help=f"{what} (default here: %(default)s)")
    add("--lr", metavar="X", type=positive_float, help="highest learning rate (default: by size)")
    add("--seed", metavar="N", type=seed, default=0, help="of weights, order of the text and sample (default 0)")
    add("--prompt", metavar="TEXT", help="what the sample begins with (default: 'def ' for the standard library)")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--resume", action="store_const", const="resume", dest="mode", help="insist on going on")
    mode.add_argument("--fresh", action="store_const", const="fresh", dest="mode", help="start over")
    options = parser.parse_args(arguments)
    if options.length < 2:
        raise UserError("argument --length: expected at least 2: the first byte of a sequence is not predicted")
    prompt = options.prompt if options.prompt is not None else "" if options.data else "def "
    return Run(
        model=options.model,
        size=options.size,
        overrides=dict(map(parse_override, options.set)),
        data=options.data,
        max_bytes=options.max_bytes,
        steps=options.steps,
        batch=options.batch,
        length=options.length,
        lr=options.lr or SIZES[options.size].lr,
        seed=options.seed,
        out=options.out or Path("runs", options.model),
        mode=options.mode or MODES[0],
        prompt=prompt,
    )


@dataclass(frozen=True)
class Prepared:
    """All that is settled before the first step."""

    arguments: TrainingArguments
    model: PreTrainedModel
    corpus: Corpus
    training: RandomWindows
    held_out: HeldOutWindows
    checkpoint: Path | None
    sequences: int
    parameters: int
    order_0: float


def prepare(run: Run) -> Prepared:
    """Read the text, make the model, and find where to begin.

    Raises:
        UserError: something that the person at the command line can put right.
    """
    _check_extra()
    config = make_config(run.model, SIZES[run.size], run.length, run.overrides)
    corpus = load_corpus(run.data, run.max_bytes)
    arguments = _training_arguments(run)
    sequences = run.batch * arguments.world_size
    training, held_out = windows(corpus, run.length, run.steps * sequences, run.seed)
    model = make_model(config, run.seed)
    with arguments.main_process_first(local=False):
        checkpoint = open_run(run.out, run.started_with(corpus, sequences), run.mode)
    if checkpoint is not None and steps_of(checkpoint) > run.steps:
        raise UserError(f"--steps {run.steps}: {run.out} has {steps_of(checkpoint)} steps behind it already")
    return Prepared(
        arguments=arguments,
        model=model,
        corpus=corpus,
        training=training,
        held_out=held_out,
        checkpoint=checkpoint,
        sequences=sequences,
        parameters=model.num_parameters(),
        order_0=held_out.order_0(corpus.train),
    )


def train(run: Run) -> int:
    """Train, measure, save and sample; returns the exit code.

    Raises:
        UserError: something that the person at the command line can put right.
    """
    prepared = prepare(run)
    _introduce(run, prepared)
    progress = Progress(prepared.sequences * run.length, prepared.held_out.bits_per_byte)
    stop = StopAtStep()
    trainer = Trainer(
        model=prepared.model,
        args=prepared.arguments,
        train_dataset=prepared.training,
        eval_dataset=prepared.held_out,
        processing_class=byte_tokenizer(),
        callbacks=[progress, stop, MarkWhole(), RefuseDivergence()],
    )
    keep(trainer)
    trainer.remove_callback(PrinterCallback)
    start = time.perf_counter()
    try:
        with stop:
            trainer.train(resume_from_checkpoint=str(prepared.checkpoint) if prepared.checkpoint else None)
    except torch.OutOfMemoryError as error:
        raise UserError("the GPU's memory is too small: try a smaller --batch, --length or --size") from error
    if stop.received:
        say(f"stopped at step {trainer.state.global_step} of {run.steps}; the same command goes on from there")
        return 128 + stop.received
    seconds = time.perf_counter() - start
    _save_model(trainer, run.out)
    if is_main_process():
        _report(run, prepared, trainer.state.log_history, progress.tokens_per_second, seconds)
        _sample(run)
    return 0


def _check_extra() -> None:
    if missing := [name for name in _EXTRA if importlib.util.find_spec(name) is None]:
        raise UserError(f"training needs {' and '.join(missing)}: pip install 'fla-models[train]'")


def _training_arguments(run: Run) -> TrainingArguments:
    device = hardware()
    often = max(1, run.steps // 80)
    arguments = TrainingArguments(
        output_dir=str(run.out),
        max_steps=run.steps,
        use_cpu=not device.is_gpu,
        ddp_find_unused_parameters=False,
        per_device_train_batch_size=run.batch,
        per_device_eval_batch_size=max(run.batch, 2**13 // run.length),
        learning_rate=run.lr,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, run.steps // 20),
        weight_decay=0.1,
        adam_beta2=0.98,
        bf16=device.device == "cuda" and device.bf16,
        seed=run.seed,
        train_sampling_strategy="sequential",  # the windows are random already
        logging_steps=often,
        eval_strategy="steps",
        eval_steps=10 * often,
        save_strategy="steps",
        save_steps=10 * often,
        save_total_limit=2,
        prediction_loss_only=True,
        logging_nan_inf_filter=False,
        dataloader_pin_memory=device.is_gpu,
        report_to="none",
        disable_tqdm=True,
        log_level="error",
        log_level_replica="error",
    )
    if arguments.n_gpu > 1:
        say(f"{arguments.n_gpu} GPUs are here and one is taken; torchrun --nproc-per-node {arguments.n_gpu} takes all")
        arguments._n_gpu = 1  # otherwise the Trainer would take all by DataParallel
    return arguments


def _introduce(run: Run, prepared: Prepared) -> None:
    precision = "bfloat16" if prepared.arguments.bf16 else "float32"
    where = hardware().name if hardware().is_gpu else f"CPU with {torch.get_num_threads()} threads"
    processes = prepared.arguments.world_size
    where = f"{processes} x {where}" if processes > 1 else where
    checkpoint = prepared.checkpoint
    begins = f"goes on from step {steps_of(checkpoint)}" if checkpoint else "begins"
    say(f"model    {run.model}, {prepared.parameters:,} parameters, {precision}, {where}")
    say(f"text     {prepared.corpus.description}")
    say(f"order 0  {prepared.order_0:.3f} bits per held-out byte, from the frequencies of bytes alone")
    say(f"run      {run.out} {begins}: {run.steps} steps of {prepared.sequences} x {run.length} bytes")
    say("         Ctrl-C stops it and loses nothing: the same command goes on from there\n")


def _save_model(trainer: Trainer, folder: Path) -> None:
    sharded = getattr(trainer.accelerator.state, "fsdp_plugin", None)
    if sharded is not None:
        sharded.set_state_dict_type("FULL_STATE_DICT")
    trainer.save_model(str(folder))


def _report(
    run: Run, prepared: Prepared, history: list[dict[str, float]], tokens_per_second: float, seconds: float
) -> None:
    bits = held_out_bits(history, prepared.held_out.bits_per_byte)[-1][1]
    results = {
        "model": run.model,
        "parameters": prepared.parameters,
        "steps": run.steps,
        "held_out_bits_per_byte": round(bits, 4),
        "order_0_bits_per_byte": round(prepared.order_0, 4),
        "tokens_per_second": round(tokens_per_second),
        "seconds": round(seconds, 1),
    }
    write_results(run.out / "results.json", results)
    title = f"{run.model} on {run.data or 'the standard library'}"
    plot_loss(run.out / "loss.png", title, history, prepared.held_out.bits_per_byte, prepared.order_0)
    took = f"{int(seconds) // 60} min {int(seconds) % 60} s, {tokens_per_second:,.0f} tokens/s"
    say(f"\nresult   {bits:.3f} bits per held-out byte, order 0 {prepared.order_0:.3f}; {took}")
    say(f"saved    {run.out}, and its loss in {run.out / 'loss.png'}")


def _sample(run: Run) -> None:
    """Let the model that was written to disk write."""
    model, tokenizer = generate.load(str(run.out))
    folder, prompt = shlex.quote(str(run.out)), shlex.quote(run.prompt)
    say(f"sample   python -m fla.models.generate {folder} --prompt {prompt}\n")
    set_seed(run.seed)
    generate.write_text(model.to(hardware().device), tokenizer, run.prompt)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return train(parse(arguments))
