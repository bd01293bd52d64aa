"""Training of a small model on text: ``python -m fla.models.train``.

``command`` is the command line and the run from its first step to its sample. ``settings`` has sizes and makes the
model; ``corpus`` reads the text, ``text_files`` refuses what is none, and ``tokenizer`` is that of bytes. ``progress``
shows the run, ``stop`` ends it without losing anything, and ``report`` writes what it came to.
"""

from fla.models.train.command import Prepared, Run, main, parse, prepare, train

__all__ = ["Prepared", "Run", "main", "parse", "prepare", "train"]
