"""How an operator and a live run's driver talk to each other."""
