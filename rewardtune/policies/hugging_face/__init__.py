"""transformers' models as policies."""
