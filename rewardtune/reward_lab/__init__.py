"""What a reward makes of predictions whose worth is known: a check before a run pays for it."""
