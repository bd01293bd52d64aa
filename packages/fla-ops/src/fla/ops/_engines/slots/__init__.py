"""A softmax over slots and what it weighs: the second pass of gsa and abc."""
