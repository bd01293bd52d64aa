"""The engine behind every norm: one row-wise kernel pair, and its twin in plain PyTorch."""

from fla.modules._norm.api import run_norm

__all__ = ["run_norm"]
