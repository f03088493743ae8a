"""How things move between processes: the wire, job queues, weight stores, telemetry."""
