"""The running log-sum-exp, and writes and decays that keep a memory bounded.

Families on it: abc, and the layer LightNet, through :mod:`fla.ops.utils`.
"""
