"""The fence that makes a learner that was thought dead harmless."""

from __future__ import annotations


class StaleTerm(RuntimeError):
    """A newer learner has taken over; whoever holds the older term must stop."""
