"""Job queues: groups on their way to be scored, and their scores."""
