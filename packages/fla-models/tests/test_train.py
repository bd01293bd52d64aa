"""The command that trains: its text, its measure, what it leaves behind, and how it goes on after an end too soon."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import fla.models
from fla.models import train
from fla.models.commands.command_line import UserError, exit_code
from fla.models.commands.run_folder import flaw, mark_whole, newest_whole
from fla.models.train.corpus import HeldOutWindows, RandomWindows, load_corpus, windows
from fla.models.train.settings import SIZES, make_config, make_model, parse_override
from fla.models.train.tokenizer import END_OF_TEXT, byte_tokenizer
from fla.utils.testing.ranks import run_ranks

# The command finds its device by itself.
pytestmark = pytest.mark.own_device
TINY = ["--set", "hidden_size=16", "--set", "num_hidden_layers=1", "--set", "num_heads=1"]
SHORT = ["--steps", "30", "--batch", "2", "--length", "32", "--lr", "3e-2", *TINY]


def command(*arguments: str | Path) -> int:
    return exit_code("train", lambda: train.main([*map(str, arguments)]))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    for index in range(20):
        (folder / f"{index:02}.txt").write_text(f"In room {index} sat cat {index * 7}. It slept; and it dreamt.\n" * 5)
    return folder


@pytest.fixture(scope="module")
def whole_run(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert command("--data", text, "--out", out, *SHORT) == 0
    return out


# Text


def test_tokens_are_bytes(tmp_path: Path) -> None:
    byte_tokenizer().save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "".join(map(chr, range(0x250))) + "\r\n\t  two  spaces , 漢字 🦊\n"
    for tokenizer in (byte_tokenizer(), loaded):
        assert tokenizer(text).input_ids == list(text.encode())
        assert tokenizer.decode(list(text.encode())) == text
        assert tokenizer.decode([*b"a", END_OF_TEXT, *b"b"], skip_special_tokens=True) == "ab"
        assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (END_OF_TEXT,) * 3
    alphabet = byte_tokenizer().convert_ids_to_tokens(list(range(256)))
    assert len(set(alphabet)) == 256


def test_a_folder_is_split_by_files_in_the_order_of_names(tmp_path: Path) -> None:
    for index in range(20):
        (tmp_path / f"{index:02}").mkdir()
        (tmp_path / f"{index:02}" / "a.txt").write_bytes(b"%02d" % index)
    (tmp_path / ".hidden").write_bytes(b"hidden")
    (tmp_path / "empty.txt").write_bytes(b"")
    corpus = load_corpus(str(tmp_path), 1000)
    expected = [t for index in range(20) if index % 10 != 9 for t in (END_OF_TEXT, *b"%02d" % index)]
    assert corpus.train.tolist() == expected
    assert corpus.held_out.tolist() == [END_OF_TEXT, *b"09", END_OF_TEXT, *b"19"]
    assert load_corpus(str(tmp_path), 1000).fingerprint == corpus.fingerprint
    first = load_corpus(str(tmp_path), 25)
    assert (
        first.train.tolist() == [END_OF_TEXT, *b"00"] + expected[3:33] + [END_OF_TEXT, *b"11", END_OF_TEXT, *b"1"][3:]
    )
    assert first.fingerprint != corpus.fingerprint
    assert "the first" in first.description


def test_of_one_file_the_end_is_held_out(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_bytes(bytes(range(1, 101)))
    corpus = load_corpus(str(tmp_path / "one.txt"), 1000)
    assert corpus.train.tolist() == [END_OF_TEXT, *range(1, 91)]
    assert corpus.held_out.tolist() == [END_OF_TEXT, *range(91, 101)]


def test_the_default_text_is_the_standard_library() -> None:
    corpus = load_corpus(None, 2**20)
    assert len(corpus.train) + len(corpus.held_out) > 2**20
    source = bytes(corpus.train[corpus.train < 256].tolist())
    assert b"def __init__(self" in source
    assert b"import unittest\n\nclass Test" not in source


def test_a_dataset_is_read_by_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="the package datasets is not installed")

    asked: list[Any] = []

    def load_dataset(*args: Any, **kwargs: Any) -> list[dict[str, Any]]:
        asked.append((args, kwargs))
        return [{"title": "no", "text": f"row {index}", "n": index} for index in range(10)]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    corpus = load_corpus("owner/name:config", 1000)
    assert asked == [(("owner/name", "config"), {"split": "train", "streaming": True})]
    assert corpus.held_out.tolist() == [END_OF_TEXT, *b"row 9"]
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: [{"label": 3}])
    with pytest.raises(UserError, match="has no column of text, only label"):
        load_corpus("name", 1000)


def test_windows_depend_on_seed_and_index_alone(text: Path) -> None:
    tokens = load_corpus(str(text), 10**6).train
    few, many, other = (RandomWindows(tokens, 8, count, seed) for count, seed in ((5, 0), (50, 0), (5, 1)))
    assert [few[i]["input_ids"].tolist() for i in range(5)] == [many[i]["input_ids"].tolist() for i in range(5)]
    assert [few[i]["input_ids"].tolist() for i in range(5)] != [other[i]["input_ids"].tolist() for i in range(5)]
    everything = ",".join(map(str, tokens.tolist()))
    assert all(",".join(map(str, item["input_ids"].tolist())) in everything for item in few)
    starts = {int(item["input_ids"][0]) for item in RandomWindows(torch.arange(10), 8, 100, 0)}
    assert starts == {0, 1, 2}


def test_bits_per_byte_and_order_0_are_what_they_say() -> None:
    held_out = torch.tensor([END_OF_TEXT, 1, 1, 2, END_OF_TEXT, 1, 3, 3], dtype=torch.int16)
    train_tokens = torch.tensor([END_OF_TEXT, 1, 1, 1, 2], dtype=torch.int16)
    measured = HeldOutWindows(held_out, 4)
    assert measured.windows.tolist() == [held_out[:4].tolist(), held_out[4:].tolist()]
    counts = Counter(dict.fromkeys(range(257), 1)) + Counter(train_tokens.tolist())
    bits = sum(-math.log2(counts[token] / counts.total()) for token in (1, 1, 2, 1, 3, 3))
    assert measured.order_0(train_tokens) == pytest.approx(bits / 6)
    crossing = HeldOutWindows(held_out, 8)
    assert crossing.bits_per_byte(1.0) == pytest.approx(7 / 6 / math.log(2)), "bytes pay for the token between texts"


def test_a_sequence_longer_than_the_data_is_refused(text: Path) -> None:
    with pytest.raises(
        UserError, match="--length 4000: a sequence is longer than the data, [0-9,]+ tokens to train on"
    ):
        windows(load_corpus(str(text), 10**6), 4000, 1, 0)


# Models


@pytest.mark.parametrize("model_type", ["gla", "transformer", "llama", "gpt2", "qwen3"])
def test_a_size_means_the_same_for_every_model_type(model_type: str) -> None:
    config = make_config(model_type, SIZES["tiny"], 64, {})
    model = make_model(config, 0)
    size = SIZES["tiny"]
    assert (config.hidden_size, config.num_hidden_layers, config.vocab_size) == (size.hidden_size, size.layers, 257)
    assert 0.4e6 < model.num_parameters() < 1.5e6
    assert torch.equal(next(make_model(config, 0).parameters()), next(model.parameters()))


def test_overrides_are_read_as_python() -> None:
    pairs = ["a=3", "b=0.5", "c=true", "d=None", "e=swish", "f=[1, 2]", "g={'layers': [1]}"]
    values = {"a": 3, "b": 0.5, "c": True, "d": None, "e": "swish", "f": [1, 2], "g": {"layers": [1]}}
    assert dict(map(parse_override, pairs)) == values


# Runs


def test_a_run_learns_and_leaves_everything_behind(whole_run: Path, text: Path) -> None:
    results = json.loads((whole_run / "results.json").read_text())
    assert results["held_out_bits_per_byte"] < results["order_0_bits_per_byte"] - 0.2
    assert results["tokens_per_second"] > 0
    assert (whole_run / "loss.png").read_bytes().startswith(b"\x89PNG")

    model = AutoModelForCausalLM.from_pretrained(whole_run).eval()
    assert isinstance(model, fla.models.GLAForCausalLM)
    corpus = load_corpus(str(text), 10**6)
    nats, count = 0.0, 0
    with torch.no_grad():
        for window in HeldOutWindows(corpus.held_out, 32).windows.long():
            logits = model(window[None]).logits[0, :-1].double()
            nats += F.cross_entropy(logits, window[1:], reduction="sum").item()
            count += int((window[1:] != END_OF_TEXT).sum())
    assert results["held_out_bits_per_byte"] == pytest.approx(nats / count / math.log(2), abs=1e-3)


def test_the_screen_shows_what_matters(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert command("--data", text, "--out", out, "--prompt", "In ", *SHORT) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    for piece in ("parameters", "order 0", "20 texts, 2 of them held out", "tokens/s", " GB", "bits/byte", "loss.png"):
        assert piece in shown.out
    assert "step 30/30" in shown.out
    sample = shown.out.split("--prompt 'In '\n\n")[1]
    assert sample.startswith("In ")
    assert len(sample) > 100


def interrupt_at(monkeypatch: pytest.MonkeyPatch, item: int, number: signal.Signals) -> None:
    """Send this process a signal when an item of the training data is fetched, once."""
    real = RandomWindows.__getitem__
    sent: list[int] = []

    def fetch(self: RandomWindows, index: int) -> dict[str, torch.Tensor]:
        if index == item and not sent:
            sent.append(index)
            os.kill(os.getpid(), number)
        return real(self, index)

    monkeypatch.setattr(RandomWindows, "__getitem__", fetch)


def assert_same_end(out: Path, whole_run: Path) -> None:
    ours, expected = (load_file(folder / "model.safetensors") for folder in (out, whole_run))
    for name, weight in expected.items():
        torch.testing.assert_close(ours[name], weight, rtol=1e-5, atol=1e-6)
    assert_same_measure(out, whole_run, 1e-3)


def assert_same_measure(out: Path, whole_run: Path, tolerance: float) -> None:
    results, whole = (json.loads((folder / "results.json").read_text()) for folder in (out, whole_run))
    assert results["held_out_bits_per_byte"] == pytest.approx(whole["held_out_bits_per_byte"], abs=tolerance)


def logged_steps(out: Path) -> list[int]:
    state = json.loads((out / "checkpoint-30" / "trainer_state.json").read_text())
    return [entry["step"] for entry in state["log_history"] if "loss" in entry]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_goes_on_in_order(
    text: Path,
    whole_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
    code: int,
) -> None:
    out = tmp_path / "run"
    before = signal.getsignal(number)
    interrupt_at(monkeypatch, 2 * 13, number)
    assert command("--data", text, "--out", out, *SHORT) == code
    assert "stopped at step 13 of 30; the same command goes on from there" in capsys.readouterr().out
    assert newest_whole(out) == out / "checkpoint-13"
    assert signal.getsignal(number) == before
    assert command("--data", text, "--out", out, *SHORT) == 0
    assert "goes on from step 13" in capsys.readouterr().out
    assert logged_steps(out) == list(range(1, 31))
    assert_same_end(out, whole_run)


def test_ctrl_c_at_the_terminal(text: Path, whole_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    line = [sys.executable, "-u", "-m", "fla.models.train", "--data", str(text), "--out", str(out), *SHORT]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for shown in process.stdout:
            if shown.startswith("step 10/"):
                process.send_signal(signal.SIGINT)
                break
        rest, errors = process.stdout.read(), process.stderr.read()
    assert process.returncode == 130
    assert errors == ""
    assert rest.splitlines()[-1].startswith("stopped at step 1")
    assert command("--data", text, "--out", out, *SHORT) == 0
    assert_same_end(out, whole_run)


def test_after_a_crash_it_goes_on_from_the_last_whole_checkpoint(
    text: Path, whole_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("fla.models.train.stop.mark_whole", crash_at_the_second_checkpoint)
        with pytest.raises(MemoryError):
            command("--data", text, "--out", out, *SHORT)
    assert flaw(out / "checkpoint-20") == "never finished"
    assert newest_whole(out) == out / "checkpoint-10"
    assert command("--data", text, "--out", out, *SHORT) == 0
    assert "goes on from step 10" in capsys.readouterr().out
    assert_same_end(out, whole_run)


def crash_at_the_second_checkpoint(checkpoint: Path) -> None:
    if checkpoint.name == "checkpoint-20":
        raise MemoryError
    mark_whole(checkpoint)


def test_a_checkpoint_cut_short_is_passed_over(
    text: Path, whole_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert command("--data", text, "--out", out, *SHORT) == 0
    for checkpoint in out.glob("checkpoint-30/optimizer.pt"):
        checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    assert flaw(out / "checkpoint-30") == "optimizer.pt is missing or cut short"
    assert command("--data", text, "--out", out, *SHORT) == 0
    assert "goes on from step 20" in capsys.readouterr().out
    assert_same_end(out, whole_run)

    for checkpoint in out.glob("checkpoint-*/model.safetensors"):
        checkpoint.unlink()
    assert command("--data", text, "--out", out, *SHORT) == 2
    assert "no whole checkpoint to go on from (checkpoint-30: model.safetensors is missing" in capsys.readouterr().err
    assert command("--data", text, "--out", out, "--fresh", *SHORT) == 0
    assert_same_end(out, whole_run)


def test_a_run_keeps_to_what_it_was_started_with(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert command("--data", text, "--out", out, *SHORT, "--steps", "4") == 0
    capsys.readouterr()
    for change in (["--lr", "1"], ["--batch", "3"], ["--length", "16"], ["--seed", "1"], ["--max-bytes", "3000"]):
        assert command("--data", text, "--out", out, *SHORT, *change) == 2
        assert "was begun with" in capsys.readouterr().err
    assert command("--data", text, "--out", out, *SHORT, "--steps", "2") == 2
    assert "has 4 steps behind it already" in capsys.readouterr().err
    assert command("--data", text, "--out", out, *SHORT, "--steps", "6", "--resume") == 0
    assert "goes on from step 4: 6 steps" in capsys.readouterr().out
    assert newest_whole(out) == out / "checkpoint-6"
    assert command("--data", text, "--out", out, *SHORT, "--lr", "1e-3", "--steps", "4", "--fresh") == 0
    assert newest_whole(out) == out / "checkpoint-4"


def test_several_processes_share_the_work_and_one_talks(text: Path, whole_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ["--data", str(text), "--out", str(out), *SHORT, "--batch", "1"]
    shown = run_ranks(["-m", "fla.models.train", *options])
    assert [text.count("order 0  ") for text in shown] == [text.count("step 30/30") for text in shown] == [1, 0]
    alone = whole_run
    if torch.cuda.is_available():
        # Ranks run on the CPU, in float32: a change of weights by a thousandth, as bfloat16 makes, is 0.05 bits here.
        alone = tmp_path / "alone"
        run_ranks(["-m", "fla.models.train", "--data", text, "--out", alone, *SHORT], world=1)
    assert_same_measure(out, alone, 0.01)


# Errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nothing.txt"], "--data: there is no file or folder nothing.txt"),
        (["--data", "./nothing"], "--data: there is no file or folder ./nothing"),
        (["--data", "{tmp}/empty.txt"], "--data: there is no text in {tmp}/empty.txt"),
        (["--data", "{tmp}/folder"], "--data: there is no text in {tmp}/folder"),
        (["--data", "{tmp}/short.txt"], "--length 32: a sequence is longer than the data, 6 tokens to train on"),
        (["--model", "glaa"], "--model: no language model is called 'glaa'; did you mean gla"),
        (["--model", "vit"], "--model: no language model is called 'vit'"),
        (["--model", "nope"], "--model: no language model is called 'nope'; of fla there are abc, based, "),
        (["--steps", "-5"], "argument --steps: expected a whole number above 0, got '-5'"),
        (["--batch", "0"], "argument --batch: expected a whole number above 0, got '0'"),
        (["--length", "1"], "argument --length: expected at least 2"),
        (["--lr", "-0.1"], "argument --lr: expected a number above 0, got '-0.1'"),
        (["--lr", "nan"], "argument --lr: expected a number above 0, got 'nan'"),
        (["--seed", "4294967296"], "argument --seed: expected a whole number from 0 to 2**32 - 1"),
        (["--size", "huge"], "argument --size: invalid choice: 'huge'"),
        (["--stops", "5"], "unrecognized arguments: --stops 5"),
        (["--resume", "--fresh"], "argument --fresh: not allowed with argument --resume"),
        (["--resume"], "--resume: there is no run in {tmp}/out"),
        (["--set", "hidden_size"], "--set: expected KEY=VALUE, got 'hidden_size'"),
        (["--set", "hiden_size=8"], "--set: GLAConfig has no key 'hiden_size'; did you mean hidden_size"),
        (["--set", "hidden_size=wide"], "--model gla: "),
        (["--set", "num_heads=3"], "--model gla: "),
        (["--out", "{tmp}/short.txt"], "--out: {tmp}/short.txt is a file"),
        (["--out", "{tmp}"], "--out: {tmp} holds other files than those of a run"),
        (["--lr", "1e30", "--steps", "9"], "the loss is nan at step"),
    ],
)
def test_bad_input_ends_in_one_line(
    arguments: Sequence[str], message: str, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "short.txt").write_text("short")
    (tmp_path / "folder").mkdir()
    defaults = ["--data", str(text), "--out", str(tmp_path / "out"), *SHORT]
    given = [argument.replace("{tmp}", str(tmp_path)) for argument in arguments]
    assert command(*defaults, *given) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("train: error: " + message.replace("{tmp}", str(tmp_path)))
    assert shown.count("\n") == 1


def test_an_unreachable_dataset_ends_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    datasets = pytest.importorskip("datasets", reason="the package datasets is not installed")

    def load_dataset(*args: Any, **kwargs: Any) -> None:
        raise datasets.exceptions.DatasetNotFoundError("no\nsuch dataset")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert command("--data", "owner/name") == 2
    told = "there is no file or folder owner/name, nor could a dataset of that name be read: no such dataset"
    assert capsys.readouterr().err == f"train: error: --data: {told}\n"


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("fla.models.train.command._EXTRA", ("accelerate", "surely_not_installed"))
    assert command() == 2
    error = capsys.readouterr().err
    assert error == "train: error: training needs surely_not_installed: pip install 'fla-models[train]'\n"


def test_a_full_disk_ends_in_one_line(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr("fla.models.train.corpus._read", full)
    assert command("--data", text, "--out", tmp_path / "out", *SHORT) == 2
    assert capsys.readouterr().err == "train: error: somewhere: No space left on device\n"
