"""The services of a run as plain objects, each in a process of its own."""
