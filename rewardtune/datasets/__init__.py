"""Data sets: what an example is, how it is seen, and in what order."""
