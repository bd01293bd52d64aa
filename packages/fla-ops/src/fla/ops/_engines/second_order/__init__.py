"""Linear attention over second-order features of queries and keys, which are made in registers.

The family on it: based; rebased takes its features' width from here.
"""
