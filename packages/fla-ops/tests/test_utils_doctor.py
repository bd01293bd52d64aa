"""The doctor: its conclusions, its two forms of output, its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from fla.utils import doctor
from fla.utils.doctor import OpBackend, Report, conclusions, main, op_backends
from fla.utils.environment import Environment, Finding, ForeignOwner, Package
from fla.utils.hardware import Hardware, describe_nvidia

H200 = describe_nvidia(
    SimpleNamespace(
        name="NVIDIA H200",
        major=9,
        minor=0,
        multi_processor_count=132,
        shared_memory_per_block=49152,
        shared_memory_per_block_optin=232448,
        L2_cache_size=60 << 20,
    )
)
CPU = replace(
    H200,
    device="cpu",
    vendor="cpu",
    name="a processor",
    compute_capability=None,
    sm_count=2,
    shared_memory_per_block=0,
    l2_cache_bytes=0,
    tf32=False,
    tma=False,
    tensor_core_generation=None,
)
V100 = replace(H200, name="V100", compute_capability=(7, 0), tensor_core_generation="volta", bf16=False)


def environment(**versions: str | None) -> Environment:
    packages = {"fla-ops": "1.0.0", "fla-models": "1.0.0", "torch": "2.13.0", "triton": "3.7.1"}
    packages.update({name.replace("_", "-"): version for name, version in versions.items()})
    return Environment(tuple(Package(name, version) for name, version in packages.items()), ())


def whats(found: Environment, *hardware: Hardware, backends: tuple[OpBackend, ...] = ()) -> list[tuple[str, bool]]:
    return [(finding.what, finding.broken) for finding in conclusions(found, hardware, backends)]


@pytest.fixture(autouse=True)
def _no_nvidia_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(doctor, "_NVIDIA_DRIVER", tmp_path / "none")  # type: ignore[operator]
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


def test_nothing_to_say() -> None:
    assert whats(environment(), CPU) == []


def test_a_gpu_without_triton() -> None:
    (finding,) = conclusions(environment(triton=None), [H200], [])
    assert finding == Finding("a GPU, but no Triton for its kernels", "pip install 'fla-ops[triton]'", broken=False)
    assert whats(environment(triton=None), CPU) == []


def test_known_bad_combinations_of_the_gpus_that_are_there() -> None:
    assert len(whats(environment(triton="3.6.0"), H200, H200)) == 4
    blackwell = replace(H200, compute_capability=(10, 0), tensor_core_generation="blackwell")
    assert whats(environment(triton="3.2.0"), H200, blackwell) == [
        ("Triton before 3.3 has no code for Blackwell GPUs", True)
    ]


def test_a_gpu_older_than_ampere() -> None:
    ((what, broken),) = whats(environment(), V100)
    assert what.startswith("a GPU older than Ampere")
    assert not broken


def test_without_models() -> None:
    assert whats(environment(fla_models=None), CPU) == [("no models here: fla-models is not installed", False)]


def test_a_gpu_that_pytorch_was_not_built_for(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(doctor, "_NVIDIA_DRIVER", tmp_path)
    monkeypatch.setattr(doctor, "_is_cpu_build", lambda: True)
    assert whats(environment(), CPU) == [("an NVIDIA driver, but a PyTorch without CUDA", False)]
    monkeypatch.setattr(doctor, "_is_cpu_build", lambda: False)
    assert whats(environment(), CPU) == []


def test_ops_that_raise_here_break_it() -> None:
    raising = OpBackend("fla.ops", "gla", ("chunk_gla",), None, "no such thing")
    assert whats(environment(), CPU, backends=(raising, raising)) == [("ops raise here: no such thing", True)]


REPORT = Report(
    hardware=(H200,),
    environment=Environment(
        (Package("torch", "2.13.0", ">=2.7"), Package("triton", None, ">=3.2")), (ForeignOwner("fla-core", "1", 2, 0),)
    ),
    backends=(
        OpBackend("fla.ops", "gla", ("chunk_gla",), "triton", "tensors on cuda"),
        OpBackend("fla.ops", "delta_rule", ("chunk_delta_rule",), "triton", "tensors on cuda"),
        OpBackend("fla.ops", "attn", ("parallel_attn",), "torch", "there is no triton backend of it"),
    ),
    findings=(Finding("a note", "do this", broken=False), Finding("a fault", "do that")),
)


TEXT = """\
hardware  NVIDIA H200: cuda:0, hopper, compute capability 9.0, 132 SMs, 227 KiB of shared memory, 60 MiB of L2, tma
versions  torch         2.13.0  (>=2.7)
          triton        not installed  (>=3.2)
backends  triton for fla.ops: gla, delta_rule
            because: tensors on cuda
          torch for fla.ops: attn
            because: there is no triton backend of it
findings  BROKEN: a fault
            do that
          note: a note
            do this

something is broken: see the findings"""


def test_text() -> None:
    assert replace(REPORT, hardware=(replace(H200, tf32=False, bf16=False),)).as_text() == TEXT


def test_json_says_the_same() -> None:
    content = json.loads(REPORT.as_json())
    assert content["healthy"] is False
    assert content["hardware"][0]["compute_capability"] == [9, 0]
    assert content["packages"][1] == {"name": "triton", "version": None, "wanted": ">=3.2"}
    assert content["foreign"] == [{"name": "fla-core", "version": "1", "files": 2, "overlapping": 0}]
    assert content["backends"][0]["functions"] == ["chunk_gla"]
    assert content["findings"] == [
        {"what": "a note", "todo": "do this", "broken": False},
        {"what": "a fault", "todo": "do that", "broken": True},
    ]


@pytest.mark.parametrize(("report", "code"), [(REPORT, 1), (replace(REPORT, findings=REPORT.findings[:1]), 0)])
def test_exit_code(
    report: Report, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: report)
    assert main([]) == code
    assert capsys.readouterr().out.startswith("hardware  NVIDIA H200")
    assert main(["--json"]) == code
    assert json.loads(capsys.readouterr().out)["healthy"] is (code == 0)


def test_the_backend_of_each_family() -> None:
    found = {op.family: op for op in op_backends("cpu", "fla.ops")}
    assert found["gla"] == OpBackend("fla.ops", "gla", ("chunk_gla", "fused_recurrent_gla"), "torch", "tensors on cpu")
    assert op_backends("cpu", "fla.nothing_of_that_name") == []


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fla.utils", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONWARNINGS": "ignore", **variables}
    )


def test_the_command() -> None:
    done = run("--json", FLA_BACKEND="reference")
    content = json.loads(done.stdout)
    assert done.returncode == (0 if content["healthy"] else 1)
    (gla,) = (op for op in content["backends"] if op["family"] == "gla")
    assert (gla["backend"], gla["reason"]) == ("reference", "FLA_BACKEND")


def test_the_command_with_a_backend_that_does_not_exist() -> None:
    done = run(FLA_BACKEND="tritn")
    assert done.returncode == 1
    assert "BROKEN: FLA_BACKEND: expected one of triton, torch, reference, got 'tritn'" in done.stdout
    assert done.stdout.count("BROKEN") == 1
    assert done.stderr == ""


def test_a_damaged_installation_is_reported_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(*_: object) -> None:
        raise ImportError("cannot import name 'x'")

    monkeypatch.setattr(doctor, "op_backends", damaged)
    monkeypatch.setattr(doctor, "_probe", damaged)
    report = doctor.examine(environment())
    assert [finding.what for finding in report.findings] == [
        "probing the hardware failed: ImportError: cannot import name 'x'",
        "importing fla.ops failed: ImportError: cannot import name 'x'",
        "importing fla.modules failed: ImportError: cannot import name 'x'",
    ]
    assert not report.healthy


def test_without_pytorch() -> None:
    missing = replace(
        environment(torch=None), findings=(Finding("torch is not installed", "pip install 'torch>=2.7'"),)
    )
    report = doctor.examine(missing)
    assert (report.hardware, report.backends) == ((), ())
    assert "torch is not installed" in report.as_text()
