"""What importing costs and what it leaves alone, each in a fresh interpreter."""

import subprocess
import sys

COST = """
import time
{before}
start = time.process_time()
import {module}
print(time.process_time() - start)
"""

LOADED = """
import sys
{before}
before = {{name.split(".")[0] for name in sys.modules}}
import {module}
print(*sorted({{name.split(".")[0] for name in sys.modules}} - before))
"""

# Who calls is what counts: torch and transformers may ask for a GPU at their own risk.
PROBES = """
import sys
import torch
import transformers

asked = []

def watch(module, name):
    real = getattr(module, name)

    def watched(*args, **kwargs):
        caller = sys._getframe(1).f_globals["__name__"]
        if caller.split(".")[0] == "fla":
            asked.append(f"{caller} calls {module.__name__}.{name}")
        return real(*args, **kwargs)

    setattr(module, name, watched)

for module in (torch.cuda, torch.xpu, torch.accelerator):
    for name in ("init", "is_available", "device_count", "current_device", "current_accelerator",
                 "current_device_index", "get_device_capability", "get_device_name", "get_device_properties"):
        if hasattr(module, name):
            watch(module, name)

import fla
for name in dir(fla):
    getattr(fla, name)
print(*asked, sep=", ")
assert not torch.cuda.is_initialized()
"""


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def cost(module: str, before: str = "") -> float:
    """Processor time in seconds, the least of three: other processes of the machine do not count."""
    return min(float(run(COST.format(module=module, before=before))) for _ in range(3))


def loaded(module: str, before: str = "") -> set[str]:
    """The top-level modules that an import adds."""
    return set(run(LOADED.format(module=module, before=before)).split())


def test_fla_alone_is_light() -> None:
    assert cost("fla") < 0.1
    assert not loaded("fla") & {"torch", "transformers", "triton", "numpy"}


def test_ops_cost_torch_and_little_more() -> None:
    assert cost("fla.ops", before="import torch") < 0.3
    assert not loaded("fla.ops", before="import torch") & {"transformers", "triton"}


def test_modules_and_layers_do_without_transformers() -> None:
    assert "transformers" not in loaded("fla.layers, fla.modules")


def test_importing_the_whole_menu_asks_for_no_gpu() -> None:
    assert run(PROBES) == ""
