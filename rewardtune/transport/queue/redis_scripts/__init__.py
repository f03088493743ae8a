"""What Redis itself does for the job queue: see ``catalogue``."""
