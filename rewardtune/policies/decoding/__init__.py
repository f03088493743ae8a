"""Drawing token sequences from a network: cached, left to right."""
