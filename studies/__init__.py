"""What tuning gains, and controls for it: the programs behind the records of evidence/studies."""
