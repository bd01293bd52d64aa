"""Linear attention divided by the sum of its weights, in the precision of sums until divided.

Families on it: linear_attn, based, rebased.
"""
