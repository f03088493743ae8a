"""The driver of a run: what is drawn, by whom, and what is done when somebody dies."""
