"""Variants of one run over several seeds, and the table that compares them."""
