"""Decoding a stage I: time, types and memory."""
