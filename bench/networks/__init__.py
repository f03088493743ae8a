"""Sampler and learner beside their peers and the processor's floor."""
