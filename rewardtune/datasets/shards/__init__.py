"""Data sets on disk: Arrow shards and their manifest."""
