"""Text that a language model writes: ``python -m fla.models.generate``.

``command`` is the command line, loads the model, and lets it continue a text.
"""

from fla.models.generate.command import load, main, write_text

__all__ = ["load", "main", "write_text"]
