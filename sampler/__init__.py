"""Draws groups of rollouts with the policy version it is told to use."""
