"""Reward workers: pull groups, score them in killable children, commit results exactly once."""

# A scorer starts here, not in rewardtune: look for hidden packages before any of them is imported.
import rewardtune  # noqa: F401
