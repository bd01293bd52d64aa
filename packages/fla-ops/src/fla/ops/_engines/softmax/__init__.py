"""Softmax attention by PyTorch's own kernels: dense, packed, and in windows.

The family on it: attn.
"""
