"""A transition of diagonal and low rank, one step at a time."""
