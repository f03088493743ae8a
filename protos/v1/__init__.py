"""Version 1 of the wire contract. Fields are added, never renumbered."""
