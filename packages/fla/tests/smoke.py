"""One thing done with all five wheels: names of each level come from the menu, and the doctor finds nothing wrong."""

import subprocess
import sys

from fla import GatedLinearAttention, GLAForCausalLM, RMSNorm, chunk_gla

print(*(value.__module__ for value in (chunk_gla, RMSNorm, GatedLinearAttention, GLAForCausalLM)))
subprocess.run([sys.executable, "-m", "fla.utils"], check=True)
