"""What processes report of themselves, and where Prometheus finds it."""
