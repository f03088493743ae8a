"""Reward workers: pull groups, score them in killable children, commit results once."""
