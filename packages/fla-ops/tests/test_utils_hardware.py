"""The hardware record, from the properties of devices that are not here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import fla.utils
from fla.utils import hardware as probe
from fla.utils.hardware import (
    Hardware,
    _probe,
    best_device,
    check_shared_mem,
    describe_amd,
    describe_intel,
    describe_nvidia,
    every_device,
)

Machine = Callable[..., list[int]]


def nvidia(name: str, major: int, minor: int, sms: int, shared: int) -> SimpleNamespace:
    return SimpleNamespace(
        name=name,
        major=major,
        minor=minor,
        multi_processor_count=sms,
        shared_memory_per_block=49152,
        shared_memory_per_block_optin=shared,
        L2_cache_size=50 << 20,
    )


H200 = nvidia("NVIDIA H200", 9, 0, 132, 232448)
A100 = nvidia("NVIDIA A100-SXM4-80GB", 8, 0, 108, 166912)
RTX_4090 = nvidia("NVIDIA GeForce RTX 4090", 8, 9, 128, 101376)
T4 = nvidia("Tesla T4", 7, 5, 40, 65536)
B200 = nvidia("NVIDIA B200", 10, 0, 148, 232448)


@pytest.mark.parametrize(
    ("properties", "generation", "tf32", "bf16", "tma"),
    [
        (T4, "turing", False, False, False),
        (nvidia("V100", 7, 0, 80, 98304), "volta", False, False, False),
        (A100, "ampere", True, True, False),
        (nvidia("RTX 3090", 8, 6, 82, 101376), "ampere", True, True, False),
        (RTX_4090, "ada", True, True, False),
        (H200, "hopper", True, True, True),
        (B200, "blackwell", True, True, True),
        (nvidia("RTX 5090", 12, 0, 170, 101376), "blackwell", True, True, True),
        (nvidia("P100", 6, 0, 56, 49152), None, False, False, False),
    ],
)
def test_nvidia(properties: SimpleNamespace, generation: str | None, tf32: bool, bf16: bool, tma: bool) -> None:
    found = describe_nvidia(properties, 3)
    assert found == Hardware(
        device="cuda",
        index=3,
        vendor="nvidia",
        name=properties.name,
        compute_capability=(properties.major, properties.minor),
        sm_count=properties.multi_processor_count,
        shared_memory_per_block=properties.shared_memory_per_block_optin,
        l2_cache_bytes=50 << 20,
        tf32=tf32,
        bf16=bf16,
        tma=tma,
        tensor_core_generation=generation,
    )


def test_shared_memory_where_pytorch_does_not_tell_what_can_be_opted_in_to() -> None:
    properties = SimpleNamespace(**vars(A100))
    del properties.shared_memory_per_block_optin
    assert describe_nvidia(properties).shared_memory_per_block == 49152


@pytest.mark.parametrize(
    ("arch", "generation", "tf32", "bf16"),
    [
        ("gfx942:sramecc+:xnack-", "cdna3", True, True),
        ("gfx90a", "cdna2", False, True),
        ("gfx950", "cdna4", False, True),
        ("gfx1100", "rdna3", False, True),
        ("gfx1030", None, False, False),
    ],
)
def test_amd(arch: str, generation: str | None, tf32: bool, bf16: bool) -> None:
    properties = SimpleNamespace(
        name="AMD Instinct",
        gcnArchName=arch,
        multi_processor_count=304,
        shared_memory_per_block=65536,
        L2_cache_size=4 << 20,
    )
    found = describe_amd(properties)
    assert (found.vendor, found.device, found.compute_capability) == ("amd", "cuda", None)
    assert found.name == f"AMD Instinct ({arch.split(':')[0]})"
    assert (found.tensor_core_generation, found.tf32, found.bf16, found.tma) == (generation, tf32, bf16, False)
    assert (found.sm_count, found.shared_memory_per_block) == (304, 65536)


def test_intel() -> None:
    properties = SimpleNamespace(
        name="Intel Data Center GPU Max 1550",
        gpu_subslice_count=64,
        local_mem_size=131072,
        has_subgroup_matrix_multiply_accumulate=True,
        has_subgroup_matrix_multiply_accumulate_tensor_float32=True,
    )
    found = describe_intel(properties)
    assert (found.vendor, found.device, found.sm_count, found.l2_cache_bytes) == ("intel", "xpu", 64, 0)
    assert (found.tensor_core_generation, found.tf32, found.bf16) == ("xmx", True, True)
    without = describe_intel(SimpleNamespace(name="Iris Xe", gpu_subslice_count=6))
    assert (without.tensor_core_generation, without.tf32, without.bf16) == (None, False, False)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Make PyTorch believe in some NVIDIA GPUs; returns the indices that get probed."""
    _probe.cache_clear()

    def pretend(*gpus: Any, current: int | None = None) -> list[int]:
        probed: list[int] = []

        def get_device_properties(index: int) -> Any:
            probed.append(index)
            return gpus[index]

        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(gpus))
        monkeypatch.setattr(torch.cuda, "get_device_properties", get_device_properties)
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: current is not None)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: current)
        monkeypatch.setattr(torch.version, "hip", None)
        monkeypatch.setattr(torch.xpu, "device_count", lambda: 0)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        return probed

    yield pretend
    _probe.cache_clear()


def test_each_device_is_probed_once(machine: Machine) -> None:
    probed = machine(H200, A100)
    assert [probe(0).name, probe(1).name, probe(0).name, probe().name] == [H200.name, A100.name, H200.name, H200.name]
    assert [device.index for device in every_device()] == [0, 1]
    assert probed == [0, 1]


def test_without_an_index_it_is_the_current_device(machine: Machine) -> None:
    machine(H200, A100, current=1)
    assert probe() == probe(1)


@pytest.mark.parametrize("index", [-1, 2])
def test_an_index_that_is_not_there(machine: Machine, index: int) -> None:
    machine(H200, A100)
    with pytest.raises(ValueError, match=rf"index: expected 0 to 1 \(cuda devices\), got {index}"):
        probe(index)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_a_forked_child_has_its_parents_answer(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(H200)
    parents = probe()
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: pytest.fail("probed again"))
    with get_context("fork").Pool(1) as pool:
        assert pool.apply(probe) == parents


NAMES = (
    "IS_NVIDIA",
    "IS_AMD",
    "IS_INTEL",
    "IS_NVIDIA_HOPPER",
    "IS_NVIDIA_BLACKWELL",
    "IS_TF32_SUPPORTED",
    "IS_TMA_SUPPORTED",
)


@pytest.mark.parametrize(
    ("gpus", "true"),
    [
        ((H200,), {"IS_NVIDIA", "IS_NVIDIA_HOPPER", "IS_TF32_SUPPORTED", "IS_TMA_SUPPORTED"}),
        ((B200,), {"IS_NVIDIA", "IS_NVIDIA_BLACKWELL", "IS_TF32_SUPPORTED", "IS_TMA_SUPPORTED"}),
        ((A100,), {"IS_NVIDIA", "IS_TF32_SUPPORTED"}),
        ((T4,), {"IS_NVIDIA"}),
        ((), set()),
    ],
)
def test_the_peers_names(machine: Machine, gpus: tuple[SimpleNamespace, ...], true: set[str]) -> None:
    machine(*gpus)
    module = sys.modules["fla.utils.hardware"]
    assert {name for name in NAMES if getattr(module, name)} == true
    assert module.device == ("cuda" if gpus else "cpu") == best_device()


@pytest.mark.parametrize(
    ("gpu", "enough"),
    [
        (H200, {"none", "ada", "ampere", "hopper", "blackwell"}),
        (A100, {"none", "ada", "ampere"}),
        (RTX_4090, {"ada"}),
        (T4, set()),
    ],
)
def test_check_shared_mem(machine: Machine, gpu: SimpleNamespace, enough: set[str]) -> None:
    machine(gpu)
    assert {arch for arch in ("none", "ada", "ampere", "hopper", "blackwell") if check_shared_mem(arch)} == enough


def test_check_shared_mem_of_an_unknown_architecture() -> None:
    with pytest.raises(ValueError, match=r"arch: expected one of none, ada, .*, got 'hoper'"):
        check_shared_mem("hoper")


def test_a_machine_without_a_gpu(machine: Machine) -> None:
    machine()
    found = probe()
    assert (found.device, found.vendor, found.compute_capability, found.is_gpu) == ("cpu", "cpu", None, False)
    assert found.name
    assert found.sm_count >= 1
    assert not check_shared_mem()


def test_the_function_is_not_hidden_by_the_module_of_its_name() -> None:
    assert fla.utils.hardware is probe
    assert callable(probe)


def test_importing_loads_no_pytorch() -> None:
    program = "import sys, fla.utils, fla.utils.environment, fla.utils.doctor; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_every_public_name_resolves() -> None:
    assert dir(fla.utils) == sorted(fla.utils.__all__)
    assert all(getattr(fla.utils, name) is not None for name in fla.utils.__all__)
    with pytest.raises(AttributeError, match="did you mean .*IS_NVIDIA"):
        _ = fla.utils.IS_NVIDEA
