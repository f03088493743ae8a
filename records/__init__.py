"""What moves between the parts: frozen values of numpy arrays and plain Python."""

from records.group import Group, Published, Score, ScoredGroup, TokenTargets, View
from records.weights import PackedTensor, PackedWeights

__all__ = [
    "Group",
    "PackedTensor",
    "PackedWeights",
    "Published",
    "Score",
    "ScoredGroup",
    "TokenTargets",
    "View",
]
