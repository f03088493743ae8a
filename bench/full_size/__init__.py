"""One tune step at the paper's size: ``python -m bench.full_size --task TASK``."""
