"""Rewards beside their peers, one thread each."""
