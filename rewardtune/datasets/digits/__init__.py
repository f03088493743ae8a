"""Digit scenes: the data set that everything can be tried on."""
