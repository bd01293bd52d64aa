"""Weights of other programs' models as ours, and back: the same numbers under other names, never other numbers.

``checkpoints`` makes one folder of another and ``files`` reads what lies in it; ``mamba``, ``rwkv`` and ``transformer``
know the names and options of a family, and ``filled`` makes a model of weights.
"""
