"""What moves between the parts: frozen values of numpy arrays and plain Python."""

from records.group import Group, Published, Score, ScoredGroup, TokenTargets, View

__all__ = ["Group", "Published", "Score", "ScoredGroup", "TokenTargets", "View"]
