"""Engines: the kernels and what runs them. An engine knows no family; families hand it checked operands.

| file | the question it answers |
|---|---|
| ``ops.py`` | which ops are registered, what is saved, what is recomputed, which backend runs? |
| ``algorithm.py`` | how does it go? plain PyTorch on every device and dtype: the CPU backend |
| ``launch.py`` | which kernels run, in which order, on which tiles? |
| ``kernels.py`` | the Triton kernels |
| ``tiles.py`` | sizes, warps and stages, by dimensions, dtype and architecture |
"""
