"""What moves between the parts: frozen values of numpy arrays and plain Python."""

from rewardtune.records.group import (
    Group,
    Published,
    Score,
    ScoredGroup,
    TokenRewards,
    TokenTargets,
    View,
    Window,
)
from rewardtune.records.weights import (
    CanaryLogProbs,
    PackedTensor,
    PackedWeights,
    TensorLayout,
    WeightBuffer,
    WeightManifest,
)

__all__ = [
    "CanaryLogProbs",
    "Group",
    "PackedTensor",
    "PackedWeights",
    "Published",
    "Score",
    "ScoredGroup",
    "TensorLayout",
    "TokenRewards",
    "TokenTargets",
    "View",
    "WeightBuffer",
    "WeightManifest",
    "Window",
]
