"""How fast it is: our parts beside their peers and beside the machine's own limits.

``python -m bench`` measures everything, prints a table and writes ``evidence/bench/results.jsonl``.
"""
