"""Policies of our own, one file per ``policy.kind``, and how they begin."""
