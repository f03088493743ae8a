"""One run, from its config to its last policy; ``local.py`` is the whole loop on one page."""
